"""The only reader of config.yaml (environment.py reads the variables).

Everything is read once, at start, into frozen models; every error is reported at once, each
with its key, its value and what was expected (`ConfigError`, exit status 2).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from swarm.errors import ConfigError, Problem

DEFAULT_CONFIG_PATH = Path("/etc/swarm/config.yaml")
DEFAULT_CREDENTIALS_DIRECTORY = Path("/etc/swarm/credentials")

TaskType = Literal["browser", "analysis"]
PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$")]
QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Port = Annotated[int, Field(ge=1, le=65535)]

#: Instances are numbered from 1 to this, so that metrics_port_base + N never leaves its block.
MAX_INSTANCE_NUMBER = 99


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )


class PoolSettings(_Section):
    """A scaled group of workers that serve the same queues."""

    task_type: TaskType
    """Which tasks its instances can run; `browser` instances keep a warm Chromium."""
    queues: tuple[QueueName, ...] = Field(min_length=1, strict=False)
    """Queues its instances consume. A queue belongs to one pool, or its backlog would be
    counted twice."""
    min_instances: int = Field(default=0, ge=0)
    """Instances kept even when nothing waits."""
    max_instances: int = Field(default=1, ge=1)
    """Instances never exceeded, over all hosts."""
    spare: int = Field(default=0, ge=0)
    """Idle instances kept beyond the busy ones, for bursts shorter than a start."""
    concurrency: int = Field(default=1, ge=1, le=64)
    """Tasks one instance runs at a time. 1: a task that kills its process harms no other."""
    metrics_port_base: int = Field(ge=1024, le=65535 - MAX_INSTANCE_NUMBER)
    """Instance N serves Prometheus metrics on this port + N."""
    expected_service_time_s: float = Field(default=5.0, gt=0)
    """Seconds a task takes, believed until instances have reported measured ones."""
    expected_boot_time_s: float = Field(default=3.0, gt=0)
    """Seconds from start to ready, believed until instances have reported measured ones."""
    task_time_limit_s: int = Field(default=120, ge=30)
    """Seconds after which a task is killed (Celery's hard limit); twenty seconds before, a
    browser task ends as DEADLINE, whatever its own deadline. `systemctl stop` waits longer than
    this, so that stopping never cuts a task."""


class HostSettings(_Section):
    """A VM that runs instances."""

    address: str = Field(min_length=1)
    """Name or IP address for SSH and for scraping metrics; `local` for this machine, no SSH."""
    port: Port = 22
    """Where its sshd listens."""
    user: str = "swarm-scaler"
    """Who the scaler logs in as; its key may run `swarm-unitctl` and nothing else."""
    max_instances: int = Field(ge=1, le=MAX_INSTANCE_NUMBER)
    """Instances of all pools together: what the host's memory bears."""
    pools: tuple[PoolName, ...] | None = Field(default=None, strict=False)
    """Pools it may run; every pool when not given."""

    @property
    def is_local(self) -> bool:
        return self.address == "local"

    def serves(self, pool: str) -> bool:
        return self.pools is None or pool in self.pools


class ScalerSettings(_Section):
    """How quickly the number of instances follows the work."""

    interval_s: float = Field(default=2.0, ge=0.5, le=20)
    """Seconds between two turns."""
    target_wait_s: float = Field(default=15.0, gt=0)
    """Seconds a task may wait in the queue; the number of instances is chosen to keep to it."""
    idle_before_stop_s: float = Field(default=120.0, ge=2)
    """Seconds an instance must have been idle before it may be stopped."""
    stabilisation_s: float = Field(default=120.0, ge=0)
    """The highest need of this many seconds is kept, so that gaps between bursts stop nothing."""
    scale_down_period_s: float = Field(default=30.0, ge=0)
    """Seconds between two steps down."""
    scale_down_percent: int = Field(default=25, ge=1, le=100)
    """Share of the instances that one step down may stop; always at least one."""
    scale_up_period_s: float = Field(default=10.0, gt=0)
    """Seconds over which starts are counted for the limit on steps up."""
    host_starts_per_turn: int = Field(default=2, ge=1)
    """Starts on one host in one turn: browsers that start together share its processors."""
    command_timeout_s: float = Field(default=10.0, gt=0, le=20)
    """Seconds one command on a host may take before the host counts as unknown."""
    unseen_counts_s: float = Field(default=300.0, ge=0)
    """Seconds that the instances of a host which stopped answering still count against
    max_instances, because they may be working; after that others take their place."""
    report_max_age_s: float = Field(default=15.0, gt=5)
    """Age in seconds beyond which an instance's own report is not believed. Instances write at
    least every 5 s."""
    survey_interval_s: float = Field(default=300.0, ge=10)
    """Seconds between two surveys of the broker at rest, one request each. They come every 30 s
    while all of a pool is busy or tasks run without a lease, every 10 s while a host is away. A
    survey gives back what vanished workers held, and notices tasks that wait although an instance
    says it is idle."""
    zero_check_s: float = Field(default=60.0, ge=1)
    """Longest time in seconds between two looks at the queues of a pool of which nothing runs, at
    one request each, when the broker cannot announce a task by itself: while scheduled tasks lie
    in them, or where it refuses BLMOVE. Otherwise a task is announced at once."""
    metrics_port: Port = 9098
    """Serves /metrics, and /sd for Prometheus' service discovery, on SWARM_METRICS_ADDRESS."""
    known_hosts: Path = Field(default=Path("/etc/swarm/scaler/known_hosts"), strict=False)
    """Host keys accepted over SSH; a host that is not in it is refused."""
    ssh_key: Path = Field(default=Path("/etc/swarm/scaler/id_ed25519"), strict=False)
    """Private key, when systemd passes none as the credential `ssh-key`."""
    state_directory: Path = Field(default=Path("/run/swarm-scaler"), strict=False)
    """Holds status.json, which `swarm status` reads."""


class FlowerSettings(_Section):
    """Where queue lengths come from."""

    url: str = Field(default="http://127.0.0.1:5555", pattern=r"^https?://[^\s/@]+(/[^\s]*)?$")
    """Address of Flower, without credentials: those are in the credential `flower-auth`."""
    timeout_s: float = Field(default=5.0, gt=0, le=20)
    """Seconds Flower may take to answer; after that queue lengths are unknown."""


class BrowserSettings(_Section):
    """The Chromium that browser tasks run on."""

    executable: Path = Field(default=Path("/usr/bin/chromium-headless-shell"), strict=False)
    """A Chromium or its headless shell; the shell is lighter and starts sooner."""
    ffmpeg: Path = Field(default=Path("/usr/bin/ffmpeg"), strict=False)
    """What encodes videos (`capture.video`); jobs that want one are refused where it is absent."""
    sandbox: bool = True
    """Chromium's own sandbox. Only a browser that runs as root cannot have it."""
    artifacts_directory: Path = Field(default=Path("/var/lib/swarm/artifacts"), strict=False)
    """Screenshots and large results, unless `artifacts_url` is set; systemd-tmpfiles removes old
    ones."""
    artifacts_url: str | None = Field(default=None, pattern=r"^https?://[^\s/@?#]+(/[^\s@?#]*)?$")
    """The fleet's artifact store, without credentials: those are in the credential
    `artifacts-write`. Artifacts lie on the host that made them while there is none."""
    artifact_max_bytes: int = Field(default=536_870_912, ge=1024)
    """Size in bytes of one artifact; a larger one ends its task as RESOURCE_LIMIT. Downloads and
    videos may be long, a store is not endless."""
    artifacts_max_age_s: int = Field(default=604_800, ge=60)
    """Seconds that artifacts are kept, as results tell it in `expires`; the roles tell it to
    systemd-tmpfiles, which does it."""
    launch_timeout_s: float = Field(default=30.0, gt=0)
    """Seconds a browser may take to start before that counts as a failure."""
    uses_before_retirement: int = Field(default=100, ge=1)
    """Tasks after which a browser is replaced, because Chromium's memory only grows. An
    instance's `CELERY_MAX_TASKS` says the same."""
    age_before_retirement_s: float = Field(default=3600.0, gt=0)
    """Seconds after which a browser is replaced, however little it was used."""
    memory_before_retirement_mb: int = Field(default=1500, ge=64)
    """Megabytes of a browser with all its processes, shared memory not counted, beyond which it
    is replaced."""
    page_memory_mb: int = Field(default=1000, ge=64)
    """Megabytes of one renderer beyond which it is killed, and its task fails with
    RESOURCE_LIMIT: one page must not take the memory of all."""
    max_bytes: int = Field(default=1_000_000_000, ge=1024)
    """Bytes that the page of one task may receive, and that a file it downloads may have."""
    allow_evaluate: bool = False
    """Whether payloads may run JavaScript of their own in the page (step `evaluate`)."""
    inline_result_bytes: int = Field(default=262_144, ge=1024)
    """Results larger than this become artifacts: Redis is no place for pages."""


class WorkerSettings(_Section):
    """Where an instance leaves word of itself."""

    status_directory: Path = Field(default=Path("/run/swarm/instances"), strict=False)
    """Status files, one an instance, read by `swarm-unitctl list`."""


class Settings(_Section):
    """config.yaml, the same file on every host."""

    pools: dict[PoolName, PoolSettings] = Field(min_length=1)
    """Pools by name; the units of pool `browser` are `celery-browser@N`."""
    hosts: dict[HostName, HostSettings] = Field(default_factory=dict)
    """Hosts by name. Only the scaler needs them."""
    scaler: ScalerSettings = ScalerSettings()
    flower: FlowerSettings = FlowerSettings()
    browser: BrowserSettings = BrowserSettings()
    worker: WorkerSettings = WorkerSettings()

    def queues(self, *, task_type: TaskType | None = None) -> tuple[str, ...]:
        """The queues of every pool, or of those for one type, in the order of config.yaml."""
        return tuple(
            queue
            for pool in self.pools.values()
            if task_type is None or pool.task_type == task_type
            for queue in pool.queues
        )

    def queue_for(self, task_type: TaskType) -> str:
        """The queue that tasks of this type are published to: the first of its first pool.

        Raises:
            ConfigError: no pool runs tasks of this type.
        """
        for pool in self.pools.values():
            if pool.task_type == task_type:
                return pool.queues[0]
        raise ConfigError([Problem("pools", "no pool", f"one with task_type {task_type}")])


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where config.yaml is: `SWARM_CONFIG`, else /etc/swarm/config.yaml."""
    return Path(environ.get("SWARM_CONFIG") or DEFAULT_CONFIG_PATH)


def load_settings(path: Path) -> Settings:
    """Read and check config.yaml.

    Raises:
        ConfigError: with every problem found.
    """
    where = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise ConfigError([Problem(where, f"no file to read ({reason})", "a YAML file")]) from exc
    try:
        document = yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError([Problem(where, reason, "valid YAML")]) from exc
    if not isinstance(document, dict):
        kind = "an empty file" if document is None else f"a {type(document).__name__}"
        raise ConfigError([Problem(where, kind, "a mapping with the keys pools and hosts")])
    try:
        settings = Settings.model_validate(document)
    except ValidationError as exc:
        raise ConfigError(list(problems_of(exc, prefix=f"{where}: "))) from exc
    problems = [
        Problem(f"{where}: {problem.where}", problem.value, problem.expected)
        for problem in _contradictions(settings)
    ]
    if problems:
        raise ConfigError(problems)
    return settings


def problems_of(error: ValidationError, *, prefix: str = "") -> Iterator[Problem]:
    """Tell each of pydantic's errors as key, value and what was expected."""
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and _holds_another(detail["loc"], details):
            # pydantic counts the right items only: one wrong action of one is "no action" too.
            continue
        # pydantic names the tag of a union and "[key]" in the path; people know neither.
        path = ".".join(str(part) for part in detail["loc"] if part != "[key]") or "(top level)"
        value = _short(detail["input"])
        kind, message = detail["type"], detail["msg"]
        if kind == "extra_forbidden":
            expected = "no such key; see docs/reference/config.md"
        elif kind == "missing":
            value, expected = "nothing", "a value (this key is required)"
        else:
            expected = re.sub(r"^(Input|Value|String) should ", "it to ", message)
            expected = expected.removeprefix("Value error, ")
        yield Problem(prefix + path, value, expected)


def _holds_another(path: tuple[int | str, ...], details: Iterable[ErrorDetails]) -> bool:
    return any(
        len(detail["loc"]) > len(path) and detail["loc"][: len(path)] == path for detail in details
    )


def _short(value: object) -> str:
    # A URL with a password is refused wherever it stands, but must not be repeated.
    text = re.sub(r"://[^\s/]*@", "://***@", repr(value))
    return text if len(text) <= 80 else text[:77] + "..."


def _contradictions(settings: Settings) -> Iterator[Problem]:
    """What is wrong between values that are each right."""
    yield from _queue_contradictions(settings)
    for name, pool in settings.pools.items():
        if pool.min_instances > pool.max_instances:
            expected = f"at most max_instances, which is {pool.max_instances}"
            yield Problem(f"pools.{name}.min_instances", str(pool.min_instances), expected)
        room = sum(host.max_instances for host in settings.hosts.values() if host.serves(name))
        if settings.hosts and room < pool.min_instances:
            expected = f"at most {room}, all the hosts' max_instances together"
            yield Problem(f"pools.{name}.min_instances", str(pool.min_instances), expected)
        for other, other_pool in settings.pools.items():
            distance = abs(other_pool.metrics_port_base - pool.metrics_port_base)
            if other < name and distance <= MAX_INSTANCE_NUMBER:
                expected = f"a port {MAX_INSTANCE_NUMBER + 1} or more away from that of {other}"
                yield Problem(
                    f"pools.{name}.metrics_port_base", str(pool.metrics_port_base), expected
                )
    minimum = sum(pool.min_instances for pool in settings.pools.values())
    places = sum(host.max_instances for host in settings.hosts.values())
    if settings.hosts and minimum > places:
        expected = f"at least {minimum}, the pools' min_instances together"
        yield Problem("hosts.*.max_instances", f"{places} together", expected)
    yield from _address_contradictions(settings)
    for name, host in settings.hosts.items():
        for pool_name in host.pools or ():
            if pool_name not in settings.pools:
                expected = f"one of {', '.join(settings.pools)}"
                yield Problem(f"hosts.{name}.pools", repr(pool_name), expected)


def _address_contradictions(settings: Settings) -> Iterator[Problem]:
    owners: dict[tuple[str, int], str] = {}
    for name, host in settings.hosts.items():
        place = (host.address, host.port)
        if place in owners:
            expected = (
                f"another address than hosts.{owners[place]}: its instances would count twice"
            )
            yield Problem(f"hosts.{name}.address", repr(host.address), expected)
        owners[place] = name
    for name, pool in settings.pools.items():
        if 0 < settings.scaler.metrics_port - pool.metrics_port_base <= MAX_INSTANCE_NUMBER:
            expected = (
                f"a block of ports without scaler.metrics_port {settings.scaler.metrics_port}"
            )
            yield Problem(f"pools.{name}.metrics_port_base", str(pool.metrics_port_base), expected)


def _queue_contradictions(settings: Settings) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    for name, pool in settings.pools.items():
        for queue in pool.queues:
            if queue in owners:
                expected = f"a queue that pools.{owners[queue]} does not serve already"
                yield Problem(f"pools.{name}.queues", repr(queue), expected)
            owners[queue] = name


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key given twice, of which plain YAML keeps the last and says nothing."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 - PyYAML's
    ) -> dict[object, object]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(self.construct_object(key_node, deep=True))
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return {str(k): v for k, v in super().construct_mapping(node, deep=deep).items()}

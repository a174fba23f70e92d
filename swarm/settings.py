"""What config.yaml holds, as frozen models; `config` reads it, `environment` the variables."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from swarm.brokers.address import VARIABLES, BrokerName
from swarm.brokers.budget import Budget
from swarm.durations import parse_duration
from swarm.errors import ConfigError, Problem
from swarm.status import MOST_PLACES

DEFAULT_CREDENTIALS_DIRECTORY = Path("/etc/swarm/credentials")

TaskType = Literal["browser", "analysis"]
PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$")]
QueueName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
#: More than a thousand hosts have.
Instances = Annotated[int, Field(ge=0, le=1_000_000)]

#: A window that lasts longer than it takes to come again would never end.
_LONGEST_WINDOW = timedelta(days=7)

_FLOWER_URL = r"^https?://[^\s/@]+(/[^\s]*)?$"

#: Instances are numbered from 1 to this, so that metrics_port_base + N never leaves its block.
MAX_INSTANCE_NUMBER = 99


class _Section(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class ScheduleSettings(_Section):
    """Hours in which a pool has other limits."""

    start: str
    """When it begins, as in crontab: `0 7 * * mon-fri` is 7:00 on working days."""
    duration: str
    """How long it lasts: `10h`, `1h30m`, `45m`. Hours that pass, also when the clocks change."""
    timezone: str = "UTC"
    """Whose clock `start` means: `Europe/Berlin`."""
    min_instances: Instances | None = None
    """Takes the place of the pool's; so do the next two. At least one of the three is needed. Where
    two schedules hold at once, the later one in the list wins."""
    max_instances: Instances | None = None
    """Instances never exceeded meanwhile. What runs beyond them is stopped once it is idle."""
    spare: Instances | None = None
    """Idle instances kept beyond the busy ones."""

    @property
    def length(self) -> timedelta:
        return parse_duration(self.duration)

    @field_validator("start")
    @classmethod
    def _is_cron(cls, start: str) -> str:
        expected = "five fields as in crontab, such as 0 7 * * mon-fri"
        # CronSim takes a sixth for seconds, with other rules when the clocks change.
        if len(start.split()) != 5:
            raise ValueError(expected)
        try:
            next(CronSim(start, datetime(2024, 1, 1, tzinfo=UTC)))
        except (CronSimError, ValueError) as exc:
            raise ValueError(f"{expected} ({str(exc).lower()})") from exc
        except StopIteration:
            raise ValueError("a time that comes") from None
        return start

    @field_validator("duration")
    @classmethod
    def _is_duration(cls, duration: str) -> str:
        if parse_duration(duration) > _LONGEST_WINDOW:
            raise ValueError(f"a duration of at most {_LONGEST_WINDOW.days} days")
        return duration

    @field_validator("timezone")
    @classmethod
    def _is_timezone(cls, timezone: str) -> str:
        try:
            ZoneInfo(timezone)
        except (ValueError, OSError, ZoneInfoNotFoundError) as exc:
            raise ValueError("a timezone such as Europe/Berlin") from exc
        return timezone

    @model_validator(mode="after")
    def _says_something(self) -> ScheduleSettings:
        if self.min_instances is self.max_instances is self.spare is None:
            raise ValueError("at least one of min_instances, max_instances and spare")
        return self


class PoolSettings(_Section):
    """A scaled group of workers that serve the same queues."""

    task_type: TaskType
    """Which tasks its instances can run; `browser` instances keep a warm Chromium."""
    broker: BrokerName = "primary"
    """Which broker its instances serve. A task is done where it was accepted, so each broker that
    is in use needs a pool for each type of task."""
    queues: tuple[QueueName, ...] = Field(min_length=1, strict=False)
    """Queues its instances consume. A queue of a broker belongs to one pool, or its backlog would
    be counted twice."""
    min_instances: Instances = 0
    """Instances kept even when nothing waits."""
    max_instances: Annotated[Instances, Field(ge=1)] = 1
    """Instances never exceeded, over all hosts."""
    spare: Instances = 0
    """Idle instances kept beyond the busy ones, for bursts shorter than a start."""
    blind_instances: Instances = 0
    """Instances up to which the pool grows while nobody knows how much waits, one in 30 s as long
    as none is idle. With hosts away too it is brought up to them after 10 minutes. 0: it waits for
    whoever knows."""
    schedules: tuple[ScheduleSettings, ...] = Field(default=(), strict=False)
    """Hours in which other numbers hold."""
    concurrency: int = Field(default=1, ge=1, le=MOST_PLACES)
    """Tasks one instance runs at a time. 1: a task that kills its process harms no other."""
    metrics_port_base: int = Field(ge=1024, le=65535 - MAX_INSTANCE_NUMBER)
    """Instance N serves Prometheus metrics on this port + N."""
    expected_service_time_s: float = Field(default=5.0, ge=0.01, le=86_400)
    """Seconds a task takes, believed until instances have reported measured ones."""
    expected_boot_time_s: float = Field(default=3.0, gt=0, le=3600)
    """Seconds from start to ready, believed until instances have reported measured ones."""
    memory_mb: int = Field(default=420, ge=0)
    """Megabytes that an instance takes: a host is given one only while it has as much available,
    beside those that are starting. The default is what one with a browser and a concurrency of 1
    takes (`make bench-soak`). 0: memory is not considered."""
    task_time_limit_s: int = Field(default=120, ge=30)
    """Seconds after which a task is killed (Celery's hard limit); twenty seconds before, a
    browser task ends as DEADLINE, whatever its own deadline. `systemctl stop` waits longer than
    this, so that stopping never cuts a task."""


class HostSettings(_Section):
    """A VM that runs instances."""

    address: str = Field(pattern=r"^[^\s/@]+$")
    """Name or IP address for SSH and for scraping metrics; `local` for this machine, no SSH."""
    port: Port = 22
    """Where its sshd listens."""
    user: str = Field(default="swarm-scaler", pattern=r"^[^\s@:]+$")
    """Who the scaler logs in as; its key may run `swarm-unitctl` and nothing else."""
    max_instances: int = Field(ge=1, le=MAX_INSTANCE_NUMBER)
    """Instances of all pools together: what the host's memory bears."""
    pools: tuple[PoolName, ...] | None = Field(default=None, strict=False)
    """Pools it may run; every pool when not given."""

    @property
    def is_local(self) -> bool:
        return self.address == "local"

    @property
    def place(self) -> tuple[str, int]:
        """Its sshd, however its name is written: two hosts of one place are one."""
        return (self.address.casefold().removesuffix("."), self.port)

    def serves(self, pool: str) -> bool:
        return self.pools is None or pool in self.pools


class ScalerSettings(_Section):
    """How quickly the number of instances follows the work."""

    interval_s: float = Field(default=2.0, ge=0.5, le=20)
    """Seconds between two turns; one comes earlier when a host tells of a change."""
    target_wait_s: float = Field(default=3.0, gt=0, le=86_400)
    """Seconds a task may wait in the queue; the number of instances is chosen to keep to it. What
    waits for an instance to start waits longer."""
    stabilisation_s: float = Field(default=60.0, ge=0)
    """As many instances are kept as the work of this many seconds had use for; see `reserve`."""
    reserve: float = Field(default=1.75, ge=0, le=10)
    """Instances kept beyond the mean of those in use, as a multiple of its square root: that is by
    how much the need goes up and down by chance."""
    scale_up_period_s: float = Field(default=10.0, gt=0)
    """Seconds over which starts are counted for the limit on steps up."""
    scale_up_at_least: int = Field(default=100, ge=1)
    """Starts of a pool in `scale_up_period_s`, or as many as run already if those are more."""
    host_starts_at_once: int = Field(default=10, ge=1)
    """Instances that may be starting on one host at the same time: browsers that start together
    share its processors. With more of them than processors all are ready late, and none sooner."""
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
    while all of a pool is busy or tasks run without a lease, every 10 s while a host is away or an
    instance has lost the broker. A survey gives back what vanished workers held, and notices tasks
    that wait although an instance says it is idle."""
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
    data_directory: Path = Field(default=Path("/var/lib/swarm-scaler"), strict=False)
    """Holds what outlasts a restart, such as what was asked of metered brokers, and the lock by
    which one scaler runs at a time."""


class FlowerSettings(_Section):
    """Where queue lengths come from: a Flower for each broker."""

    url: str = Field(default="http://127.0.0.1:5555", pattern=_FLOWER_URL)
    """Address of the primary's Flower, without credentials: those are in the credential
    `flower-auth`."""
    fallback_url: str = Field(default="http://127.0.0.1:5556", pattern=_FLOWER_URL)
    """Address of the fallback's."""
    timeout_s: float = Field(default=5.0, gt=0, le=20)
    """Seconds Flower may take to answer; after that queue lengths are unknown."""

    @field_validator("url", "fallback_url")
    @classmethod
    def _names_a_place(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            is_place = bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_place = False
        if not is_place:
            raise ValueError("a host and a port such as http://127.0.0.1:5555")
        return url


class BudgetSettings(_Section):
    """What a broker that is billed by the request may be asked."""

    limit: str = Field(pattern=r"^[1-9][0-9]{0,11}/(month|day)$")
    """Requests until the next reset, at midnight UTC: `500000/month`, `10000/day`."""
    reset_day: int = Field(default=1, ge=1, le=28)
    """Day of the month on which the service begins to count anew."""
    used_so_far: int = Field(default=0, ge=0)
    """What the service says was used in this period when you set this. Change it whenever the
    count here has drifted from the service's; it counts until the reset."""

    def budget(self) -> Budget:
        return Budget.parse(self.limit, reset_day=self.reset_day)


class BrokerSettings(_Section):
    """What is particular about one broker."""

    budget: BudgetSettings | None = None
    """Of a metered broker; none for one that may be asked as often as one likes."""
    events: bool = True
    """Whether workers tell Flower of every task, for its live view; three requests a task."""


class BrokersSettings(_Section):
    """The brokers, and what is done when one is away."""

    primary: BrokerSettings = BrokerSettings()
    fallback: BrokerSettings = BrokerSettings()

    on_uncertain: Literal["duplicate", "hold"] = "duplicate"
    """What becomes of a task when its broker broke off in the middle, so that nobody knows whether
    it was accepted. `duplicate`: the fallback gets it too, and it may be done twice. `hold`:
    whoever submitted it is told that it may be queued, and may wait for it or submit it again."""
    confirm_down_s: float = Field(default=30.0, ge=1)
    """Seconds that a broker must have been away from the scaler without a break before its pools
    give way to the other broker's: nothing of them is started, and idle instances that lost it too
    are stopped where the others need their places. Longer than a restart of Redis takes."""


class BrowserSettings(_Section):
    """The Chromium that browser tasks run on."""

    executable: Path = Field(default=Path("/usr/bin/chromium-headless-shell"), strict=False)
    """A Chromium or its headless shell; the shell is lighter and starts sooner."""
    proxy: str | None = Field(default=None, pattern=r"^http://[^\s/@?#]+:[0-9]+$")
    """The proxy that all pages go through, those of loopback addresses too; the role `egress`
    deploys it. Jobs that name a proxy of their own are refused while there is one."""
    ffmpeg: Path = Field(default=Path("/usr/bin/ffmpeg"), strict=False)
    """What encodes videos (`capture.video`); jobs that want one are refused where it is absent."""
    sandbox: bool = True
    """Chromium's own sandbox. A worker whose renderers have none ends with status 2, unless this is
    false. Only a browser that runs as root cannot have it."""
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
    """Where an instance leaves word of itself, and when it takes no more work."""

    status_directory: Path = Field(default=Path("/run/swarm/instances"), strict=False)
    """Status files, one an instance, read by `swarm-unitctl`."""
    control_directory: Path = Field(default=Path("/run/swarm/control"), strict=False)
    """Sockets, one an instance, by which `swarm-unitctl cancel` reaches running tasks."""
    spool_directory: Path = Field(default=Path("/var/lib/swarm/spool"), strict=False)
    """Ends of tasks that their broker does not take for now; they are sent when it does."""
    pause_above_memory: float = Field(default=0.9, gt=0, le=1)
    """Share of the unit's memory limit (the lower of MemoryHigh and MemoryMax) above which an
    instance takes no task, until it is a twentieth of the limit below that again. What the kernel
    can drop, such as cached files, does not count."""
    pause_above_pids: float = Field(default=0.9, gt=0, le=1)
    """The same for processes and threads, as a share of the unit's TasksMax."""
    cgroup: Path | None = Field(default=None, strict=False)
    """Directory of the cgroup whose limits count; the instance's own when not given."""


class Settings(_Section):
    """config.yaml, the same file on every host."""

    pools: dict[PoolName, PoolSettings] = Field(min_length=1)
    """Pools by name; the units of pool `browser` are `celery-browser@N`."""
    hosts: dict[HostName, HostSettings] = Field(default_factory=dict)
    """Hosts by name. Only the scaler needs them."""
    scaler: ScalerSettings = ScalerSettings()
    brokers: BrokersSettings = BrokersSettings()
    flower: FlowerSettings = FlowerSettings()
    browser: BrowserSettings = BrowserSettings()
    worker: WorkerSettings = WorkerSettings()

    @property
    def served_brokers(self) -> tuple[BrokerName, ...]:
        """The brokers that have pools, the primary first."""
        return tuple(name for name in VARIABLES if self.pools_on(name))

    def pools_on(self, broker: BrokerName) -> dict[str, PoolSettings]:
        """The pools that serve a broker, in the order of config.yaml."""
        return {name: pool for name, pool in self.pools.items() if pool.broker == broker}

    def broker(self, name: BrokerName) -> BrokerSettings:
        return self.brokers.primary if name == "primary" else self.brokers.fallback

    def queues(
        self, *, task_type: TaskType | None = None, broker: BrokerName = "primary"
    ) -> tuple[str, ...]:
        """A broker's queues, or those for one type, in the order of config.yaml."""
        return tuple(
            queue
            for pool in self.pools_on(broker).values()
            if task_type is None or pool.task_type == task_type
            for queue in pool.queues
        )

    def queue_for(self, task_type: TaskType, *, broker: BrokerName = "primary") -> str:
        """The queue that tasks of this type are published to: the first of its first pool.

        Raises:
            ConfigError: no pool of this broker runs tasks of this type.
        """
        for pool in self.pools_on(broker).values():
            if pool.task_type == task_type:
                return pool.queues[0]
        raise ConfigError([Problem("pools", "no pool", f"one with task_type {task_type}")])

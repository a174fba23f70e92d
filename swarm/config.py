"""The only reader of config.yaml.

Everything is read once, at start; every error is reported at once, each with its key, its value
and what was expected (`ConfigError`, exit status 2).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import yaml
from pydantic import ValidationError

from swarm.brokers.address import BrokerName
from swarm.errors import ConfigError, Problem
from swarm.problems import problems_of
from swarm.settings import MAX_INSTANCE_NUMBER, PoolSettings, Settings, TaskType

DEFAULT_CONFIG_PATH = Path("/etc/swarm/config.yaml")


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
    except RecursionError as exc:
        raise ConfigError([Problem(where, "too many levels", "lists and mappings")]) from exc
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


def _contradictions(settings: Settings) -> Iterator[Problem]:
    """What is wrong between values that are each right."""
    yield from _queue_contradictions(settings)
    yield from _broker_contradictions(settings)
    for name, pool in settings.pools.items():
        if pool.min_instances > pool.max_instances:
            expected = f"at most max_instances, which is {pool.max_instances}"
            yield Problem(f"pools.{name}.min_instances", str(pool.min_instances), expected)
        yield from _schedule_contradictions(name, pool)
        for other, other_pool in settings.pools.items():
            distance = abs(other_pool.metrics_port_base - pool.metrics_port_base)
            if other < name and distance <= MAX_INSTANCE_NUMBER:
                expected = f"a port {MAX_INSTANCE_NUMBER + 1} or more away from that of {other}"
                yield Problem(
                    f"pools.{name}.metrics_port_base", str(pool.metrics_port_base), expected
                )
    if settings.hosts:
        yield from _room_contradictions(settings)
    yield from _address_contradictions(settings)
    for name, host in settings.hosts.items():
        for pool_name in host.pools or ():
            if pool_name not in settings.pools:
                expected = f"one of {', '.join(settings.pools)}"
                yield Problem(f"hosts.{name}.pools", repr(pool_name), expected)


def _room_contradictions(settings: Settings) -> Iterator[Problem]:
    for name, pool in settings.pools.items():
        room = sum(host.max_instances for host in settings.hosts.values() if host.serves(name))
        if not room:
            expected = f"{name} in the pools of one of them, or a host without such a list"
            yield Problem(f"pools.{name}", "a pool that no host runs", expected)
        elif room < pool.min_instances:
            expected = f"at most {room}, all the hosts' max_instances together"
            yield Problem(f"pools.{name}.min_instances", str(pool.min_instances), expected)
    minimum = sum(pool.min_instances for pool in settings.pools.values())
    places = sum(host.max_instances for host in settings.hosts.values())
    if minimum > places:
        expected = f"at least {minimum}, the pools' min_instances together"
        yield Problem("hosts.*.max_instances", f"{places} together", expected)


def _schedule_contradictions(name: str, pool: PoolSettings) -> Iterator[Problem]:
    for number, schedule in enumerate(pool.schedules):
        own = schedule.max_instances
        minimum, maximum = schedule.min_instances, pool.max_instances if own is None else own
        if minimum is not None and minimum > maximum:
            expected = f"at most max_instances, which is {maximum} then"
            yield Problem(f"pools.{name}.schedules.{number}.min_instances", str(minimum), expected)


def _address_contradictions(settings: Settings) -> Iterator[Problem]:
    owners: dict[tuple[str, int], str] = {}
    for name, host in settings.hosts.items():
        if host.place in owners:
            expected = (
                f"another address than hosts.{owners[host.place]}: its instances would count twice"
            )
            yield Problem(f"hosts.{name}.address", repr(host.address), expected)
        owners[host.place] = name
    for name, pool in settings.pools.items():
        if 0 < settings.scaler.metrics_port - pool.metrics_port_base <= MAX_INSTANCE_NUMBER:
            expected = (
                f"a block of ports without scaler.metrics_port {settings.scaler.metrics_port}"
            )
            yield Problem(f"pools.{name}.metrics_port_base", str(pool.metrics_port_base), expected)


def _queue_contradictions(settings: Settings) -> Iterator[Problem]:
    owners: dict[tuple[str, str], str] = {}
    for name, pool in settings.pools.items():
        for queue in pool.queues:
            place = (pool.broker, queue)
            if place in owners:
                expected = f"a queue that pools.{owners[place]} does not serve already"
                yield Problem(f"pools.{name}.queues", repr(queue), expected)
            owners[place] = name


def _broker_contradictions(settings: Settings) -> Iterator[Problem]:
    """A fallback without a pool for tasks of some type would keep them for ever."""
    primary, fallback = (settings.pools_on(name) for name in get_args(BrokerName))
    if not primary:
        yield Problem("pools.*.broker", "fallback", "a pool with broker primary (the default)")
    if not fallback:
        return
    for task_type in get_args(TaskType):
        served = [
            {pool.task_type for pool in pools.values()} >= {task_type}
            for pools in (primary, fallback)
        ]
        if served == [True, False]:
            expected = f"a pool with broker fallback and task_type {task_type} too"
            yield Problem("pools", ", ".join(fallback), expected)


class _UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key given twice, of which plain YAML keeps the last and says nothing."""

    def construct_object(
        self,
        node: yaml.Node,
        deep: bool = False,  # noqa: FBT001, FBT002 - PyYAML's
    ) -> object:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, LookupError, AttributeError) as exc:
            # PyYAML checks no value that it takes for a date, or that has a type's tag.
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(
                None, None, f"no {kind}: {node.value!r:.80}", node.start_mark
            ) from exc

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

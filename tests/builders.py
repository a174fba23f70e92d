"""Values for tests: each takes only what the test is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from swarm.scaler.drains import Proof
from swarm.scaler.inputs import Tallies
from swarm.scaler.model import (
    Draining,
    DrainReading,
    HostReport,
    Inputs,
    Instance,
    InstanceKey,
    InstanceState,
    Observation,
    Unknown,
)
from swarm.settings import HostSettings, PoolSettings, ScalerSettings, Settings
from swarm.status import InstanceStatus
from swarm.witness import Witness

BROWSER = {"task_type": "browser", "queues": ["browser"], "metrics_port_base": 9100}
#: The moment of a turn unless told otherwise.
NOW = 1000.0
#: The same by the calendar: a Friday.
AT = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
#: A scaler that lets tasks wait, so that a few instances do for many.
UNHURRIED = {"target_wait_s": 15}
ANALYSIS = {"task_type": "analysis", "queues": ["analysis"], "metrics_port_base": 9200}


def make_pool(**fields: Any) -> PoolSettings:
    return PoolSettings.model_validate({**BROWSER, "max_instances": 6, **fields})


def make_scaler(**fields: Any) -> ScalerSettings:
    return ScalerSettings.model_validate(fields)


def make_host(**fields: Any) -> HostSettings:
    return HostSettings.model_validate({"address": "local", "max_instances": 4, **fields})


def make_settings(**sections: Any) -> Settings:
    """Two pools on two hosts unless told otherwise."""
    return Settings.model_validate(
        {
            "pools": {
                "browser": {**BROWSER, "min_instances": 1, "max_instances": 6},
                "analysis": {**ANALYSIS, "max_instances": 2},
            },
            "hosts": {
                "h1": {"address": "local", "max_instances": 4},
                "h2": {"address": "10.77.0.12", "max_instances": 4},
            },
            **sections,
        }
    )


def make_two_brokers(**sections: Any) -> Settings:
    """A pool on each broker, whose queues have the same name, on one host with four places."""
    return Settings.model_validate(
        {
            "pools": {
                "browser": {**BROWSER, "min_instances": 1, "max_instances": 6},
                "browser-fallback": {
                    **BROWSER,
                    "broker": "fallback",
                    "max_instances": 6,
                    "metrics_port_base": 9300,
                },
            },
            "hosts": {"h1": {"address": "local", "max_instances": 4}},
            **sections,
        }
    )


def make_lost(number: int = 1, **fields: Any) -> Instance:
    """An instance of the primary's pool that is idle and lost its broker."""
    return make_instance(number, **{"idle_for_s": 5.0, "connected": False, **fields})


def make_instance(number: int = 1, state: str = "idle", **fields: Any) -> Instance:
    """Consistent unless told otherwise: a busy instance has one task, an idle one none.

    `idle_for_s` and `state_for_s` are ages at `NOW`.
    """
    instance = Instance(
        pool="browser",
        number=number,
        host="h1",
        state=InstanceState(state),
        state_since=NOW - (20.0 if state == "starting" else 600.0),
        idle_since=NOW - 600.0 if state == "idle" else None,
        active=1 if state == "busy" else 0,
        pid=1000 + number,
    )
    return replace(instance, **dated(fields, NOW))


def make_draining(
    number: int = 1, *, sequence: int = 3, draining_for_s: float = 5.0, **fields: Any
) -> Instance:
    """One that is told to take no more tasks; it has none unless told otherwise."""
    instance = make_instance(number, "draining", **fields)
    is_idle = not (instance.active or instance.reserved)
    return replace(instance, draining=Draining(is_idle, sequence, NOW - draining_for_s))


#: No instance ever answers so.
NEVER = DrainReading(at=0.0, pid=1, is_idle=True, sequence=1, witness=None)


def make_reading(instance: Instance, at: float = 50.0, **fields: Any) -> DrainReading:
    """What an instance that drains answers at this moment of its host's clock."""
    assert instance.draining is not None
    reading = DrainReading(
        at,
        instance.pid,
        instance.draining.is_idle,
        instance.draining.sequence,
        Witness(processes=4, renderers=0, cpu_s=8.0),
    )
    return replace(reading, **fields)


def make_proofs(*instances: Instance) -> dict[InstanceKey, Proof]:
    """What it takes to stop these: two readings, 2 s apart, the last one just now."""
    return {
        each.key: Proof(
            make_reading(each, 50.0),
            make_reading(each, 52.0),
            first_asked_at=NOW - 4.0,
            asked_at=NOW - 2.0,
            tasks_ended=each.tasks_ended,
        )
        for each in instances
        if each.draining is not None
    }


def dated(fields: Mapping[str, Any], now: float) -> dict[str, Any]:
    """An instance's fields, with moments in place of the ages `idle_for_s` and `state_for_s`."""
    return {
        name.replace("_for_s", "_since"): now - value if name.endswith("_for_s") else value
        for name, value in fields.items()
    }


def make_instances(**counts: int) -> tuple[Instance, ...]:
    """`make_instances(busy=2, idle=1)`: numbered from 1 in this order."""
    states = [state for state, count in counts.items() for _ in range(count)]
    return tuple(make_instance(number, state) for number, state in enumerate(states, start=1))


def make_observation(
    waiting: int | Unknown | Mapping[str, int | Unknown] = 0,
    instances: Iterable[Instance] | Unknown = (),
    *,
    now: float = NOW,
    hosts: Mapping[str, HostReport | Unknown] | None = None,
    unseen: Iterable[Instance] = (),
) -> Observation:
    """One host `h1` with `instances`, and the `hosts` besides."""
    report = instances if isinstance(instances, Unknown) else HostReport(tuple(instances))
    return Observation(
        now,
        waiting=waiting if isinstance(waiting, Mapping) else {"browser": waiting},
        hosts={"h1": report, **(hosts or {})},
        unseen=tuple(unseen),
    )


def make_inputs(
    observation: Observation,
    pool: PoolSettings | None = None,
    scaler: ScalerSettings | None = None,
    *,
    drainable: int = 0,
) -> Inputs:
    """What a decision for pool `browser` is made of."""
    tallies = Tallies()
    tallies.count(observation.hosts)
    return tallies.inputs(
        "browser", pool or make_pool(), scaler or make_scaler(), observation, drainable=drainable
    )


def make_status(**fields: Any) -> InstanceStatus:
    status = InstanceStatus(
        pool="browser",
        number=1,
        host="h1",
        pid=1001,
        phase="running",
        capacity=1,
        active=0,
        reserved=0,
        done=153,
        failed=2,
        idle_since=90.0,
        boot_time_s=0.8,
        service_time_s=1.25,
        broker="ok",
        browser="up",
        written_at=99.0,
    )
    return replace(status, **fields)


def make_cgroup(
    directory: Path,
    *,
    memory: int = 0,
    pids: int = 0,
    stat: str = "",
    files: Mapping[str, str] | None = None,
) -> Path:
    """A cgroup of a unit with MemoryHigh=1.5G, MemoryMax=2G, TasksMax=100."""
    directory.mkdir(exist_ok=True)
    contents = {
        "cgroup.procs": "",
        "memory.current": f"{memory}\n",
        "memory.high": f"{3 * 2**29}\n",
        "memory.max": f"{2**31}\n",
        "memory.stat": stat,
        "pids.current": f"{pids}\n",
        "pids.max": "100\n",
        **(files or {}),
    }
    for name, text in contents.items():
        (directory / name).write_text(text, encoding="ascii")
    return directory


def make_cgroups(root: Path, control_group: str, *pids: int) -> Path:
    """A hierarchy with this one cgroup in it."""
    directory = root / control_group.removeprefix("/")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids), encoding="ascii")
    return root

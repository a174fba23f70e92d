"""What `swarm-unitctl` tells of an instance, as the scaler sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from swarm.scaler.model import (
    Draining,
    DrainReading,
    HostReport,
    Instance,
    InstanceState,
    one_line,
)
from swarm.status import InstanceStatus
from swarm.unit_entry import PROTOCOL_VERSION, instance_of
from swarm.unit_watch import LATE_S
from swarm.witness import Witness

_MISCONFIGURED_EXIT_STATUS = 2
#: A petabyte. More is no figure to reckon with.
_MOST_MEMORY_MB = 2**30
#: systemd's `Result=` of a process that a signal ended; `timeout` is its own SIGKILL.
_BY_A_SIGNAL = {"timeout", "signal", "core-dump", "watchdog", "oom-kill"}
#: What parsing raises when it does not understand.
MALFORMED = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)


def parse_list(answer: str, *, host: str, report_max_age_s: float, at: float) -> HostReport:
    """Read what `swarm-unitctl list` printed.

    It came at the moment `at` of our clock. Ages are differences on the host's own clock, and no
    moment is taken to be longer ago than it is.

    Raises:
        one of `MALFORMED`: it is of another version or malformed.
    """
    document = json.loads(answer)
    if document["version"] != PROTOCOL_VERSION:
        raise ValueError(f"protocol version {document['version']!r}, expected {PROTOCOL_VERSION}")
    now = float(document["now"])
    instances = (
        parse_instance(entry, host=host, now=now, report_max_age_s=report_max_age_s, at=at)
        for entry in document["instances"]
    )
    return HostReport(
        tuple(instance for instance in instances if instance is not None),
        parse_memory_mb(document),
        **parse_pressures(document),
    )


def parse_memory_mb(document: Mapping[str, Any]) -> int | None:
    """What a host has available; None where its kernel does not tell.

    Raises:
        ValueError: it is no count of megabytes.
    """
    memory_mb = document.get("memory_available_mb")
    if memory_mb is None or (type(memory_mb) is int and 0 <= memory_mb <= _MOST_MEMORY_MB):
        return memory_mb
    raise ValueError(f"memory_available_mb is {memory_mb!r:.80}")


def parse_pressures(document: Mapping[str, Any]) -> dict[str, float | None]:
    """What a host tells of its pressures; an earlier release does not.

    Raises:
        one of `MALFORMED`: it is no number.
    """
    return {
        name: None if document.get(name) is None else float(document[name])
        for name in ("memory_pressure", "cpu_pressure")
    }


def parse_instance(
    entry: dict[str, Any], *, host: str, now: float, report_max_age_s: float, at: float
) -> Instance | None:
    """One entry, told at `now` of the host's clock and `at` of ours.

    None for a unit that is loaded but not running. A word older than `LATE_S` no longer says that
    queues are empty: a process that is frozen since would be believed for no longer.

    Raises:
        one of `MALFORMED`: it is not understood.
    """
    active_state = entry["active_state"]
    if active_state == "inactive":
        return None
    # What no unit can be called never reaches a command, a metric or a port.
    named = instance_of(f"celery-{entry['pool']}@{entry['number']}.service")
    if named is None:
        raise ValueError(f"no instance: {entry['pool']!r:.80}, {entry['number']!r:.80}")
    status, trouble = _read_status(entry["status"], now=now, report_max_age_s=report_max_age_s)
    common: dict[str, Any] = {
        "pool": named[0],
        "number": named[1],
        "host": host,
        "state_since": at - max(0.0, now - float(entry["state_changed_at"])),
        "pid": int(entry["main_pid"]),
        "misconfigured": active_state == "failed"
        and entry["exit_status"] == _MISCONFIGURED_EXIT_STATUS,
        "killed": active_state == "failed" and entry["result"] in _BY_A_SIGNAL,
    }
    state = _state(active_state, status)
    if status is None:
        unreported = state is InstanceState.UNREPORTED
        return Instance(state=state, trouble=trouble if unreported else None, **common)

    def ours(moment: float) -> float:
        return at - max(0.0, now - moment)

    idle_since = draining = None
    if state is InstanceState.IDLE and status.idle_since is not None:
        idle_since = ours(status.idle_since)
    if state is InstanceState.DRAINING and status.drain is not None:
        drain = status.drain
        draining = Draining(drain.state == "idle", drain.sequence, ours(drain.since))
    return Instance(
        state=state,
        trouble=_why_it_takes_nothing(status),
        draining=draining,
        idle_since=idle_since,
        active=status.active,
        reserved=status.reserved,
        capacity=status.capacity,
        tasks_ended=status.done + status.failed,
        waits=(
            state is InstanceState.IDLE
            and status.broker == "ok"
            and now - status.written_at <= LATE_S
        ),
        connected=status.broker == "ok",
        queues=status.queues,
        requests=status.requests,
        service_time_s=status.service_time_s,
        boot_time_s=status.boot_time_s,
        **common,
    )


def parse_reading(answer: str) -> DrainReading:
    """Read what `swarm-unitctl drain` printed.

    Raises:
        one of `MALFORMED`: it is of another version or malformed.
    """
    document = json.loads(answer)
    if document["version"] != PROTOCOL_VERSION:
        raise ValueError(f"protocol version {document['version']!r}, expected {PROTOCOL_VERSION}")
    seen = document["witness"]
    return DrainReading(
        at=float(document["now"]),
        pid=int(document["pid"]),
        is_idle=document["state"] == "idle",
        sequence=int(document["sequence"]),
        witness=None
        if seen is None
        else Witness(int(seen["processes"]), int(seen["renderers"]), float(seen["cpu_s"])),
    )


def _read_status(
    document: Any, *, now: float, report_max_age_s: float
) -> tuple[InstanceStatus | None, str | None]:
    """The instance's word when it can be believed, else why it cannot."""
    if not isinstance(document, dict):
        return None, "it left no status file"
    try:
        status = InstanceStatus.from_mapping(document)
    except ValueError as exc:
        return None, one_line(f"its status file is not understood: {exc}")
    age_s = now - status.written_at
    # A clock that stepped, or that is no number, proves nothing either.
    if not 0 <= age_s <= report_max_age_s:
        return None, f"its status file is {age_s:.0f} s old"
    return status, None


def _why_it_takes_nothing(status: InstanceStatus) -> str | None:
    if status.drain is not None:
        return f"{status.drain}, sequence {status.drain.sequence}"
    return f"paused: {status.paused}" if status.paused else None


def _state(active_state: str, status: InstanceStatus | None) -> InstanceState:
    match active_state:
        case "failed":
            return InstanceState.FAILED
        case "deactivating":
            return InstanceState.STOPPING
        case "activating":
            return InstanceState.STARTING
    if status is None:
        return InstanceState.UNREPORTED
    if status.phase == "stopping":
        return InstanceState.STOPPING
    if status.phase == "starting":
        return InstanceState.STARTING
    if status.drain is not None:
        return InstanceState.DRAINING
    if status.paused is not None:
        return InstanceState.PAUSED
    return InstanceState.BUSY if status.active or status.reserved else InstanceState.IDLE

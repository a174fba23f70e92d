"""A host's instances through `swarm-unitctl`: its words out, its JSON in, for every transport."""

from __future__ import annotations

import json
from typing import Any

from swarm.scaler.model import HostReport, Instance, InstanceState, Unknown
from swarm.scaler.ports import CommandError, CommandRunner
from swarm.status import InstanceStatus
from swarm.unitctl import PROTOCOL_VERSION

_MISCONFIGURED_EXIT_STATUS = 2
#: Age in seconds up to which the word "idle" says that a queue is empty. Instances write at every
#: change, and every 5 s; a process that was frozen since would be believed for no longer.
_WAITS_MAX_AGE_S = 7.0


class SystemdUnits:
    """A `UnitManager` for one host."""

    def __init__(self, host: str, runner: CommandRunner, *, report_max_age_s: float) -> None:
        self._host = host
        self._runner = runner
        self._report_max_age_s = report_max_age_s

    async def report(self) -> HostReport | Unknown:
        try:
            answer = await self._runner.run("list")
        except CommandError as exc:
            return Unknown(str(exc))
        try:
            return parse_list(answer, host=self._host, report_max_age_s=self._report_max_age_s)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            return Unknown(f"swarm-unitctl's answer is not understood: {exc}")

    async def start(self, pool: str, number: int) -> None:
        await self._runner.run("start", pool, str(number))

    async def stop(self, pool: str, number: int) -> None:
        await self._runner.run("stop", pool, str(number))


def parse_list(answer: str, *, host: str, report_max_age_s: float) -> HostReport:
    """Read what `swarm-unitctl list` printed.

    All ages are differences on the host's own clock.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RecursionError: it is of another version
            or malformed.
    """
    document = json.loads(answer)
    if document["version"] != PROTOCOL_VERSION:
        raise ValueError(f"protocol version {document['version']!r}, expected {PROTOCOL_VERSION}")
    now = float(document["now"])
    instances = (
        _instance(entry, host=host, now=now, report_max_age_s=report_max_age_s)
        for entry in document["instances"]
    )
    return HostReport(
        tuple(instance for instance in instances if instance is not None),
        document.get("memory_available_mb"),
    )


def _instance(
    entry: dict[str, Any], *, host: str, now: float, report_max_age_s: float
) -> Instance | None:
    """None for a unit that is loaded but not running."""
    active_state = entry["active_state"]
    if active_state == "inactive":
        return None
    status, trouble = _read_status(entry["status"], now=now, report_max_age_s=report_max_age_s)
    common: dict[str, Any] = {
        "pool": str(entry["pool"]),
        "number": int(entry["number"]),
        "host": host,
        "state_for_s": max(0.0, now - float(entry["state_changed_at"])),
        "pid": int(entry["main_pid"]),
        "misconfigured": active_state == "failed"
        and entry["exit_status"] == _MISCONFIGURED_EXIT_STATUS,
    }
    state = _state(active_state, status)
    if status is None:
        unreported = state is InstanceState.UNREPORTED
        return Instance(state=state, trouble=trouble if unreported else None, **common)
    idle_for_s = 0.0
    if state is InstanceState.IDLE and status.idle_since is not None:
        idle_for_s = max(0.0, now - status.idle_since)
    return Instance(
        state=state,
        trouble=_why_paused(status),
        idle_for_s=idle_for_s,
        active=status.active,
        reserved=status.reserved,
        capacity=status.capacity,
        tasks_ended=status.done + status.failed,
        waits=(
            state is InstanceState.IDLE
            and status.broker == "ok"
            and now - status.written_at <= _WAITS_MAX_AGE_S
        ),
        connected=status.broker == "ok",
        queues=status.queues,
        requests=status.requests,
        service_time_s=status.service_time_s,
        boot_time_s=status.boot_time_s,
        **common,
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
        return None, f"its status file is not understood: {exc}"
    age_s = now - status.written_at
    # A clock that stepped, or that is no number, proves nothing either.
    if not 0 <= age_s <= report_max_age_s:
        return None, f"its status file is {age_s:.0f} s old"
    return status, None


def _why_paused(status: InstanceStatus) -> str | None:
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
    if status.paused is not None or status.drain is not None:
        return InstanceState.PAUSED
    return InstanceState.BUSY if status.active or status.reserved else InstanceState.IDLE

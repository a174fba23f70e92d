"""What systemd knows of the instances, asked over the system bus."""

from __future__ import annotations

from typing import Any

from swarm.system_bus import BusError, Call, SystemBus
from swarm.unit_entry import UNIT_PATTERN, instance_of

_SYSTEMD = "org.freedesktop.systemd1"
_MANAGER = (_SYSTEMD, "/org/freedesktop/systemd1", f"{_SYSTEMD}.Manager")
_UNIT, _SERVICE = f"{_SYSTEMD}.Unit", f"{_SYSTEMD}.Service"
_PROPERTIES = "org.freedesktop.DBus.Properties"
#: systemd's name for the objects of units whose names begin with `celery-`.
_OBJECTS = "/org/freedesktop/systemd1/unit/celery_2d"
_CHANGES = (
    f"type='signal',sender='{_SYSTEMD}',interface='{_PROPERTIES}',member='PropertiesChanged',"
    f"path_namespace='/org/freedesktop/systemd1/unit',arg0='{_UNIT}'"
)
#: What the list of units does not tell, and the name it has in an entry.
_MORE = {
    "result": (_SERVICE, "Result"),
    "main_pid": (_SERVICE, "MainPID"),
    "exit_status": (_SERVICE, "ExecMainStatus"),
    "state_changed_at": (_UNIT, "StateChangeTimestampMonotonic"),
}


class Units:
    """Raises `BusError` where the bus or systemd does not do its part."""

    def __init__(self, bus: SystemBus) -> None:
        self._bus = bus
        self._last_bodies: dict[str, bytes] = {}
        bus.match(_CHANGES)
        # systemd sends signals to nobody who has not asked it to.
        bus.call(Call(*_MANAGER, "Subscribe"))

    def fileno(self) -> int:
        return self._bus.fileno()

    def have_changed(self) -> bool:
        """Whether systemd has told of any change of an instance since the last time.

        It is a hint that `look` is worth while, no more: signals follow replies at leisure.
        """
        changed = False
        for signal in self._bus.signals():
            if not signal.path.startswith(_OBJECTS):
                continue
            # A worker's STATUS= line, which comes with every task, has systemd tell all properties
            # of the unit anew, and those of this interface are as they were.
            if self._last_bodies.get(signal.path) != signal.body:
                self._last_bodies[signal.path] = signal.body
                changed = True
        return changed

    def look(self) -> list[dict[str, Any]]:
        """Every instance that is not inactive, in systemd's own words."""
        (listed,) = self._bus.call(
            Call(*_MANAGER, "ListUnitsByPatterns", "asas", [[], [UNIT_PATTERN]])
        )
        units: dict[str, tuple[str, int, str, str]] = {}
        for name, _, _, active, sub_state, _, path, _, job, _ in listed:
            instance = instance_of(name)
            active_state = _with_job(active, job)
            if instance is not None and active_state != "inactive":
                units[path] = (*instance, active_state, sub_state)
        self._last_bodies = {
            path: body for path, body in self._last_bodies.items() if path in units
        }
        answers = self._bus.call_all(
            [
                Call(_SYSTEMD, path, _PROPERTIES, "Get", "ss", names)
                for path in units
                for names in _MORE.values()
            ]
        )
        entries = []
        for at, (pool, number, active_state, sub_state) in enumerate(units.values()):
            entry: dict[str, Any] = {
                "pool": pool,
                "number": number,
                "active_state": active_state,
                "sub_state": sub_state,
            }
            more = answers[at * len(_MORE) : (at + 1) * len(_MORE)]
            for name, answer in zip(_MORE, more, strict=True):
                if isinstance(answer, BusError):
                    break
                entry[name] = answer[0]
            else:
                entry["state_changed_at"] /= 1e6
                entries.append(entry)
            # Else it went in between, and the next look is without it.
        return entries


def _with_job(active_state: str, job: str) -> str:
    """The state, in which what systemd has accepted and not begun yet counts as begun."""
    if active_state in {"inactive", "failed"} and job in {"start", "restart"}:
        return "activating"
    if active_state == "active" and job in {"stop", "restart"}:
        return "deactivating"
    return active_state

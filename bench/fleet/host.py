"""One simulated host: what systemd and the instances' status files would show there.

It stands in for `unit_bus.Units` and `unit_watch.Words`, out of which the `Watcher` of
`swarm-unitctl watch` makes its lines, and does what the other verbs ask.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from swarm.status import DrainState, DrainStatus, InstanceStatus
from swarm.unitctl import Command

POOL = "browser"
#: Instances at the start, and the most that config.yaml gives a host.
INSTANCES = 10
PLACES = 20
#: Seconds from a start to ready, and those that an instance says a task takes: as config.yaml
#: expects them by default.
BOOT_S = 3.0
_SERVICE_TIME_S = 5.0
#: Seconds between two words of an instance of which nothing changes (`swarm.worker.reporter`).
_WORD_S = 5.0

#: Seconds after which a drain ends that nobody renews (`swarm.worker.drain`).
_DRAIN_S = 60.0

Later = Callable[[float, Callable[[], None]], object]
"""Has something called after so many seconds."""


class NotDoneError(Exception):
    """What was asked for is not done; the message says why."""


@dataclass(slots=True, eq=False)
class _Unit:
    """One `celery-browser@N.service`."""

    number: int
    pid: int
    changed_at: float
    word: InstanceStatus | None = None
    """What its instance says; None while it boots."""
    sequence: int = 1
    drained_until: float = 0.0

    def say(self, **changes: Any) -> InstanceStatus:
        """Write another word."""
        if self.word is None:
            raise NotDoneError(f"{POOL}-{self.number} does not answer")
        self.word = replace(self.word, written_at=time.monotonic(), **changes)
        return self.word


@dataclass(eq=False)
class Host:
    """Ten instances that are busy, and places for as many more."""

    name: str
    later: Later
    started_at: list[float] = field(default_factory=list)
    """When each start came, by the clock that all processes share."""
    taken: int = 0
    """Tasks that instances have taken after they were started."""
    stopped: int = 0
    wrong: list[str] = field(default_factory=list)
    """Commands that must not come: a start without a place, a stop of who has a task."""
    watchers: list[Callable[[], None]] = field(default_factory=list)
    """Called after each change."""

    def __post_init__(self) -> None:
        self._units = {number: self._new_unit(number) for number in range(1, INSTANCES + 1)}
        for unit in self._units.values():
            unit.word = self._first_word(unit)

    @property
    def running(self) -> int:
        """Instances, with those that boot."""
        return len(self._units)

    @property
    def idle(self) -> int:
        """Instances without a task, whether they drain or wait for one."""
        words = (unit.word for unit in self._units.values())
        return sum(word is not None and not word.active for word in words)

    def look(self) -> list[dict[str, Any]]:
        """Every unit, in systemd's own words."""
        return [
            {
                "pool": POOL,
                "number": unit.number,
                "active_state": "activating" if unit.word is None else "active",
                "sub_state": "start" if unit.word is None else "running",
                "result": "success",
                "main_pid": unit.pid,
                "exit_status": 0,
                "state_changed_at": unit.changed_at,
            }
            for unit in self._units.values()
        ]

    def of(self, entry: Mapping[str, Any]) -> dict[str, Any] | None:
        """The instance's own word, as new as the last one that it would have written."""
        word = self._units[entry["number"]].word
        if word is None:
            return None
        now = time.monotonic()
        return {**word.document(), "written_at": now - (now - word.written_at) % _WORD_S}

    def do(self, command: Command) -> dict[str, Any]:
        """The answer without its version.

        Raises:
            NotDoneError: as `swarm-unitctl` would fail, or such a command must not come.
        """
        verbs = {
            "start": self._start,
            "drain": self._drain,
            "undrain": self._undrain,
        }
        if command.pool != POOL or command.number is None:
            self._refuse(f"{command.verb} {command.pool} {command.number}")
        if command.verb == "stop":
            answer = self._stop(command.number, command.pid, command.sequence)
        elif command.verb in verbs:
            answer = verbs[command.verb](command.number)
        else:
            self._refuse(command.verb)
        self._changed()
        return answer

    def end_task(self) -> None:
        """Have the first instance end its task and find no other one."""
        if (unit := self._units.get(1)) is not None and unit.word is not None and unit.word.active:
            unit.say(active=0, idle_since=time.monotonic(), done=unit.word.done + 1)
            self._changed()

    def take_task(self) -> None:
        """Have it take the next one, unless it drains."""
        unit = self._units.get(1)
        if unit is not None and unit.word is not None and unit.word.drain is None:
            unit.say(active=1, idle_since=None)
            self._changed()

    def _start(self, number: int) -> dict[str, Any]:
        if number in self._units or len(self._units) == PLACES:
            self._refuse(f"start {number}")
        self.started_at.append(time.monotonic())
        unit = self._units[number] = self._new_unit(number)
        self.later(BOOT_S, lambda: self._boot(unit))
        return {"ok": True}

    def _boot(self, unit: _Unit) -> None:
        """It is ready, and takes one of the tasks that it was started for."""
        unit.changed_at = time.monotonic()
        unit.word = self._first_word(unit)
        self.taken += 1
        self._changed()

    def _stop(self, number: int, pid: int, sequence: int) -> dict[str, Any]:
        unit = self._unit(number)
        is_idle = unit.word is not None and unit.word.drain is not None and not unit.word.active
        if not is_idle or (unit.pid, unit.sequence) != (pid, sequence):
            self._refuse(f"stop {number} {pid} {sequence}")
        del self._units[number]
        self.stopped += 1
        return {"ok": True}

    def _drain(self, number: int) -> dict[str, Any]:
        unit = self._unit(number)
        unit.drained_until = time.monotonic() + _DRAIN_S
        if unit.word is not None and unit.word.drain is None:
            self._tell_drain(unit, "stopping" if unit.word.active else "idle")
            self.later(_DRAIN_S, lambda: self._lapse(unit))
        return self._told(unit)

    def _undrain(self, number: int) -> dict[str, Any]:
        """It consumes again, and takes a task."""
        unit = self._unit(number)
        if unit.word is not None and unit.word.drain is not None:
            unit.sequence += 1
            unit.say(drain=None, active=1, idle_since=None)
        return self._told(unit)

    def _lapse(self, unit: _Unit) -> None:
        left_s = unit.drained_until - time.monotonic()
        if left_s > 0:
            self.later(left_s, lambda: self._lapse(unit))
        elif self._units.get(unit.number) is unit:
            self._undrain(unit.number)
            self._changed()

    def _tell_drain(self, unit: _Unit, state: DrainState) -> None:
        unit.sequence += 1
        unit.say(drain=DrainStatus(state, unit.sequence, time.monotonic()))

    def _told(self, unit: _Unit) -> dict[str, Any]:
        """What `swarm-unitctl` says of an instance that it has told something."""
        drain = unit.say().drain
        return {
            "now": time.monotonic(),
            "pool": POOL,
            "number": unit.number,
            "active_state": "active",
            "state": "consuming" if drain is None else drain.state,
            "sequence": unit.sequence,
            "since": unit.changed_at if drain is None else drain.since,
            "pid": unit.pid,
            "witness": {"processes": 10, "renderers": 0, "cpu_s": 1.0},
        }

    def _unit(self, number: int) -> _Unit:
        if number not in self._units:
            raise NotDoneError(f"{POOL}-{number} does not answer")
        return self._units[number]

    def _refuse(self, words: str) -> NoReturn:
        self.wrong.append(f"{self.name}: {words}")
        raise NotDoneError(f"{self.name} was not to be told: {words}")

    def _new_unit(self, number: int) -> _Unit:
        return _Unit(number, pid=1000 + number, changed_at=time.monotonic())

    def _first_word(self, unit: _Unit) -> InstanceStatus:
        return InstanceStatus(
            pool=POOL,
            number=unit.number,
            host=self.name,
            pid=unit.pid,
            phase="running",
            capacity=1,
            active=1,
            reserved=0,
            done=0,
            failed=0,
            idle_since=None,
            boot_time_s=BOOT_S,
            service_time_s=_SERVICE_TIME_S,
            broker="ok",
            browser="up",
            written_at=time.monotonic(),
        )

    def _changed(self) -> None:
        for watcher in list(self.watchers):
            watcher()

"""The world outside a scaler: hosts, their instances, one queue, and the tasks.

The same for every model. It keeps to what the product's own parts do: an instance takes one task
at a time; the one that has waited longest gets the next, as Redis serves blocked clients in the
order in which they blocked; a unit that is asked to stop takes nothing more, ends what it has, and
is killed when its time is over. A task that is cut is first in the queue again at once, and is
done anew: kinder than any broker, which has to notice first.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial
from random import Random

from bench.simulation.clock import Clock
from bench.simulation.traces import Loss, Trace
from bench.simulation.unit import Drain, Task, Unit
from swarm.worker.drain import LEASE_S

#: Seconds until a command on a host takes effect: SSH and systemd.
COMMAND_S = 0.2
#: Seconds in which an instance that has nothing to do is gone.
EXIT_S = 0.5


class UnreachableError(Exception):
    """A command to a host that is away."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The hosts."""

    hosts: int = 10
    places: int = 10
    """Instances that each host bears."""
    boot_s: float = 3.0
    """Median of the seconds from a start to an instance that takes tasks."""
    boot_spread: float = 0.15
    """Standard deviation of its logarithm."""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"h{number:02}" for number in range(1, self.hosts + 1))


@dataclass(frozen=True, slots=True)
class Move:
    """A number of instances that were started or, negative, stopped at one time."""

    at: float
    change: int


class World:
    """What models see and change, and what became of it."""

    def __init__(self, trace: Trace, fleet: Fleet, seed: int) -> None:
        self.clock = Clock()
        self.fleet = fleet
        self.trace = trace
        self.tasks = [Task(arrival.at, arrival.service_s) for arrival in trace.arrivals]
        self.units: dict[tuple[str, int], Unit] = {}
        self.starts = self.stops = self.kills = 0
        self.drains = self.undrains = 0
        """Drains that began, and those that were cancelled."""
        self.slipped_in = 0
        """Tasks that were there when a drain took effect."""
        self.met_a_task = 0
        """Stops that found a task when they took effect."""
        self.moves: list[Move] = []
        self.changed_at: float | None = None
        """When an instance changed first since this was last None."""
        self.ended = 0
        self._rng = Random(f"boot {seed}")
        self._queue: deque[Task] = deque()
        self._idle: dict[Unit, None] = {}
        self._lost: dict[tuple[Loss, str], int] = {}
        self._unit_seconds = 0.0
        self._pids = 1000
        self._expect(0)
        for spell in trace.spells:
            host = "" if spell.loss is Loss.QUEUE else fleet.names[spell.host % fleet.hosts]
            self.clock.at(spell.begin, partial(self._lose, (spell.loss, host), 1))
            self.clock.at(spell.end, partial(self._lose, (spell.loss, host), -1))

    # -- what can be seen

    @property
    def now(self) -> float:
        return self.clock.now

    @property
    def waiting(self) -> int:
        """Tasks in the queue."""
        return len(self._queue)

    @property
    def working(self) -> int:
        """Tasks that instances have."""
        return sum(unit.task is not None for unit in self.units.values())

    def is_lost(self, loss: Loss, host: str = "") -> bool:
        return self._lost.get((loss, host), 0) > 0

    def room(self) -> dict[str, int]:
        """Free places on each host that can be reached."""
        held: dict[str, int] = {}
        for host, _ in self.units:
            held[host] = held.get(host, 0) + 1
        return {
            host: self.fleet.places - held.get(host, 0)
            for host in self.fleet.names
            if not self.is_lost(Loss.HOST, host)
        }

    @property
    def unit_seconds(self) -> float:
        """How long instances have run together, from the start that was accepted to the end."""
        return self._unit_seconds + sum(self.now - unit.asked_at for unit in self.units.values())

    # -- what can be done

    def start(self, host: str, number: int) -> None:
        """Have an instance start; one that runs already runs on.

        Raises:
            UnreachableError: the host is away.
        """
        self._reach(host)
        if (host, number) in self.units:
            return
        self._pids += 1
        boot_s = self.fleet.boot_s * self._rng.lognormvariate(0.0, self.fleet.boot_spread)
        unit = Unit(host, number, self._pids, self.now, boot_s)
        self.units[host, number] = unit
        self.starts += 1
        self._note_change()
        self._note_move(1)
        self.clock.after(COMMAND_S + boot_s, partial(self._on_ready, unit))

    def stop(self, unit: Unit, *, patience_s: float) -> None:
        """Have an instance stop, and kill it with what it does if it takes longer than that.

        Raises:
            UnreachableError: its host is away.
        """
        self._reach(unit.host)
        if not unit.is_capacity:
            return
        self.stops += 1
        self._note_move(-1)
        self.clock.after(COMMAND_S, partial(self._on_stop, unit, patience_s))

    def drain(self, unit: Unit) -> Drain:
        """Have an instance take no more tasks, or go on taking none; how far it is then.

        Raises:
            UnreachableError: its host is away.
        """
        self._reach(unit.host)
        if unit.drain is None:
            self.drains += 1
            self.slipped_in += unit.task is not None
            self._note_change()
        unit.begin_drain(self.now, for_s=LEASE_S)
        self._idle.pop(unit, None)
        self.clock.after(LEASE_S, partial(self._on_lease, unit))
        assert unit.drain is not None
        return unit.drain

    def undrain(self, unit: Unit) -> None:
        """Have an instance consume again.

        Raises:
            UnreachableError: its host is away.
        """
        self._reach(unit.host)
        if unit.drain is not None:
            self.undrains += 1
            self._end_drain(unit)

    # -- what happens

    def _expect(self, number: int) -> None:
        if number < len(self.tasks):
            self.clock.at(self.tasks[number].arrived_at, partial(self._on_arrival, number))

    def _on_arrival(self, number: int) -> None:
        self._expect(number + 1)
        self._queue.append(self.tasks[number])
        self._hand_out()

    def _on_ready(self, unit: Unit) -> None:
        if unit.stopping_at is None:
            unit.become_ready(self.now)
            self._note_change()
            self._idle[unit] = None
            self._hand_out()

    def _hand_out(self) -> None:
        while self._queue and self._idle:
            unit = next(iter(self._idle))
            del self._idle[unit]
            task = self._queue.popleft()
            unit.begin(self.now, task)
            self._note_change()
            self.clock.after(task.service_s, partial(self._on_end, unit, unit.run))

    def _on_lease(self, unit: Unit) -> None:
        if unit.drain is not None and self.now >= unit.drain_ends_at:
            self._end_drain(unit)

    def _end_drain(self, unit: Unit) -> None:
        unit.end_drain(self.now)
        self._note_change()
        if unit.takes_tasks:
            self._idle[unit] = None
            self._hand_out()

    def _on_end(self, unit: Unit, run: int) -> None:
        if unit.task is None or unit.run != run:
            return
        unit.end(self.now)
        self._note_change()
        self.ended += 1
        if unit.stopping_at is not None:
            self.clock.after(EXIT_S, partial(self._remove, unit))
            return
        if unit.takes_tasks:
            self._idle[unit] = None
            self._hand_out()

    def _on_stop(self, unit: Unit, patience_s: float) -> None:
        if unit.stopping_at is not None:
            return
        unit.stopping_at = self.now
        self._note_change()
        self._idle.pop(unit, None)
        if unit.task is None:
            self.clock.after(EXIT_S, partial(self._remove, unit))
            return
        self.met_a_task += 1
        self.clock.after(patience_s, partial(self._on_kill, unit))

    def _on_kill(self, unit: Unit) -> None:
        if unit.task is None:
            return
        self.kills += 1
        self._queue.appendleft(unit.cut())
        self._remove(unit)
        self._hand_out()

    def _remove(self, unit: Unit) -> None:
        self._unit_seconds += self.now - unit.asked_at
        self._note_change()
        del self.units[unit.host, unit.number]

    def _lose(self, what: tuple[Loss, str], change: int) -> None:
        self._lost[what] = self._lost.get(what, 0) + change

    def _reach(self, host: str) -> None:
        if self.is_lost(Loss.HOST, host):
            raise UnreachableError(f"{host} does not answer")

    def _note_change(self) -> None:
        if self.changed_at is None:
            self.changed_at = self.now

    def _note_move(self, change: int) -> None:
        """Those of one moment and direction count as one."""
        last = self.moves[-1] if self.moves else None
        if last is not None and last.at == self.now and last.change * change > 0:
            self.moves[-1] = Move(self.now, last.change + change)
        else:
            self.moves.append(Move(self.now, change))

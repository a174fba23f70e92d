"""One simulated instance: a unit that boots, takes one task at a time, drains and stops."""

from __future__ import annotations

from dataclasses import dataclass, replace

#: Seconds between two looks of an instance's reporter at itself (`swarm.worker.reporter`): what
#: changed since is not in its status file yet.
TICK_S = 0.25
#: Weight of the newest task in the service time an instance reports (`swarm.worker.reporter`).
_SERVICE_TIME_WEIGHT = 0.1


@dataclass(slots=True, eq=False)
class Task:
    """What became of one task."""

    arrived_at: float
    service_s: float
    begun_at: float | None = None
    """When it was first taken from the queue."""
    ended_at: float | None = None
    cuts: int = 0
    """How often it was interrupted, and done anew."""


@dataclass(frozen=True, slots=True)
class Drain:
    """How far one has come, as `swarm.worker.drain` counts it."""

    is_idle: bool
    sequence: int
    since: float


@dataclass(frozen=True, slots=True)
class Word:
    """What an instance's status file says of its work."""

    busy: bool = False
    idle_since: float | None = None
    tasks_ended: int = 0
    service_time_s: float | None = None
    drain: Drain | None = None


@dataclass(slots=True, eq=False)
class Unit:
    """Its state and, by `word`, what it has told of it so far."""

    host: str
    number: int
    pid: int
    asked_at: float
    """When its start was accepted."""
    boot_s: float
    ready_at: float | None = None
    stopping_at: float | None = None
    task: Task | None = None
    run: int = 0
    """Counts the tasks it has begun."""
    drain: Drain | None = None
    drain_ends_at: float = 0.0
    """When it consumes again unless the drain is renewed."""
    _sequence: int = 1
    _now: Word = Word()
    _before: Word = Word()
    _changed_at: float = float("-inf")

    @property
    def is_capacity(self) -> bool:
        return self.stopping_at is None

    @property
    def is_idle(self) -> bool:
        return self.ready_at is not None and self.stopping_at is None and self.task is None

    @property
    def state_since(self) -> float:
        """When its unit last changed its state, as systemd counts it."""
        if self.stopping_at is not None:
            return self.stopping_at
        return self.asked_at if self.ready_at is None else self.ready_at

    @property
    def takes_tasks(self) -> bool:
        return self.is_idle and self.drain is None

    def word(self, now: float) -> Word:
        """What its status file says."""
        return self._before if now - self._changed_at < TICK_S else self._now

    def become_ready(self, now: float) -> None:
        self.ready_at = now
        self._now = self._before = Word(idle_since=now)

    def begin(self, now: float, task: Task) -> None:
        self.task = task
        self.run += 1
        if task.begun_at is None:
            task.begun_at = now
        self._tell(now, replace(self._now, busy=True, idle_since=None))

    def end(self, now: float) -> Task:
        """The task that it has done."""
        task = self._let_go()
        task.ended_at = now
        measured = self._now.service_time_s
        before = task.service_s if measured is None else measured
        smoothed = before + _SERVICE_TIME_WEIGHT * (task.service_s - before)
        if self.drain is not None:
            self._enter_idle()
        ended = self._now.tasks_ended + 1
        self._tell(
            now,
            Word(
                busy=False,
                idle_since=now,
                tasks_ended=ended,
                service_time_s=smoothed,
                drain=self.drain,
            ),
        )
        return task

    def begin_drain(self, now: float, *, for_s: float) -> None:
        """Take no more tasks for so long, whatever an earlier call said."""
        self.drain_ends_at = now + for_s
        if self.drain is None:
            self._sequence += 1
            self.drain = Drain(is_idle=False, sequence=self._sequence, since=now)
            if self.task is None:
                self._enter_idle()
            self._tell(now, replace(self._now, drain=self.drain))

    def end_drain(self, now: float) -> None:
        self._sequence += 1
        self.drain = None
        self._tell(now, replace(self._now, drain=None))

    def _enter_idle(self) -> None:
        assert self.drain is not None
        self._sequence += 1
        self.drain = replace(self.drain, is_idle=True, sequence=self._sequence)

    def cut(self) -> Task:
        """The task that it loses with its life."""
        task = self._let_go()
        task.cuts += 1
        return task

    def _let_go(self) -> Task:
        if self.task is None:
            raise ValueError("an instance without a task has none to lose")
        task, self.task = self.task, None
        return task

    def _tell(self, now: float, word: Word) -> None:
        if now > self._changed_at:
            self._before = self._now
        self._now, self._changed_at = word, now

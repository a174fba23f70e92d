"""What another config.yaml would have decided on what was seen. Pure; the policy is the real one.

Each pool's figures are taken as they were, but for the instances by which the two configurations
had come to differ: those that only the new one has count as idle, and of those that it lacks the
idle ones are taken away first, then the busy ones, whose tasks wait.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from swarm.scaler import policy
from swarm.scaler.decisions import UNCHANGED_S, TurnRecord
from swarm.scaler.demand import with_pace
from swarm.scaler.limits import effective
from swarm.scaler.model import Decision, Inputs, PoolMemory
from swarm.settings import Settings

#: Seconds between two lines of a pool after which the scaler was not running in between.
_GAP_S = 2.5 * UNCHANGED_S

CANNOT_KNOW = (
    "What this cannot know: how the queues would have gone with other numbers of instances, "
    "whether hosts had had room, and what happened between two lines (up to 10 s while other "
    "figures than the need change, 60 s at rest). It tells tendencies, not what would have been."
)


@dataclass(slots=True)
class Total:
    """What one configuration asks for."""

    starts: int = 0
    stops: int = 0
    instance_s: float = 0.0

    def add(self, decision: Decision) -> None:
        self.starts += max(0, decision.desired - decision.running)
        self.stops += max(0, decision.running - decision.desired)


@dataclass(frozen=True, slots=True)
class Difference:
    """A turn in which the two come to different numbers; `at` is Unix time."""

    at: float
    then: Decision
    now: Decision


@dataclass(slots=True)
class PoolReplay:
    """One pool, line after line."""

    then: Total = field(default_factory=Total)
    now: Total = field(default_factory=Total)
    lines: int = 0
    warm_up: int = 0
    """Lines at the beginning, and after gaps, which only fill the stabilisation window."""
    _memory: PoolMemory = field(default_factory=PoolMemory)
    _extra: int = 0
    _began_at: float = 0.0
    _at: float = float("-inf")
    _last: tuple[float, Decision, Decision] | None = None

    def take(self, name: str, record: TurnRecord, settings: Settings) -> Difference | None:
        """Decide anew; a difference if it is not that of the line before."""
        told, at = record.pools[name], record.at
        if not 0 <= at - self._at <= _GAP_S:
            self._memory, self._extra, self._began_at, self._last = PoolMemory(), 0, at, None
        self._at, before = at, self._last
        limits = effective(settings.pools[name], datetime.fromtimestamp(at, UTC), told.overrides)
        inputs = with_extra(told.inputs, self._extra)
        memory = with_pace(self._memory, inputs, told.pace)
        now, self._memory = policy.decide(
            name, settings.pools[name], settings.scaler, inputs, limits, memory
        )
        then = told.decision(name)
        if at - self._began_at < settings.scaler.stabilisation_s:
            self.warm_up += 1
            return None
        self.lines += 1
        if before is not None:
            self.then.instance_s += (at - before[0]) * before[1].desired
            self.now.instance_s += (at - before[0]) * before[2].desired
        self.then.add(then)
        self.now.add(now)
        self._extra = now.desired - then.desired
        self._last = (at, then, now)
        is_new = before is None or _numbers(before[1], before[2]) != _numbers(then, now)
        return Difference(at, then, now) if then.desired != now.desired and is_new else None


def _numbers(then: Decision, now: Decision) -> tuple[object, ...]:
    return (then.desired, then.cause, now.desired, now.cause)


@dataclass(slots=True)
class Replay:
    """All pools that the lines and the new config.yaml both have."""

    settings: Settings
    pools: dict[str, PoolReplay] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    """Pools that the new config.yaml does not have."""
    first_at: float | None = None
    last_at: float = 0.0
    _scale_up_periods_s: set[float] = field(default_factory=set)

    def differences(self, records: Iterable[TurnRecord]) -> Iterator[Difference]:
        """Line after line; the totals are whole when it ends."""
        for record in records:
            self.first_at = record.at if self.first_at is None else self.first_at
            self.last_at = record.at
            self._scale_up_periods_s.add(record.scale_up_period_s)
            for name in record.pools:
                if name not in self.settings.pools:
                    self.left_out.add(name)
                    continue
                pool = self.pools.setdefault(name, PoolReplay())
                difference = pool.take(name, record, self.settings)
                if difference is not None:
                    yield difference

    def caveats(self) -> Iterator[str]:
        """What has to be known to read the result."""
        own = self.settings.scaler.scale_up_period_s
        others = self._scale_up_periods_s - {own}
        if others:
            then = ", ".join(f"{other:g}" for other in sorted(others))
            yield (
                f"scaler.scale_up_period_s is {own:g}, but what was started lately was counted "
                f"with {then}"
            )
        if self.left_out:
            yield f"no such pool in the new config.yaml: {', '.join(sorted(self.left_out))}"
        yield CANNOT_KNOW


def with_extra(inputs: Inputs, extra: int) -> Inputs:
    """As they would be with so many instances more, or fewer."""
    if extra >= 0:
        return replace(inputs, idle=inputs.idle + extra, drainable=inputs.drainable + extra)
    idle = max(0, inputs.idle + extra)
    missing = -extra - (inputs.idle - idle)
    starting = max(0, inputs.starting - missing)
    missing -= inputs.starting - starting
    busy = max(0, inputs.busy - missing)
    share = busy / inputs.busy if inputs.busy else 0.0
    active = round(inputs.active * share)
    waiting = inputs.waiting
    if isinstance(waiting, int):
        waiting += inputs.active - active
    return replace(
        inputs,
        waiting=waiting,
        idle=idle,
        starting=starting,
        busy=busy,
        active=active,
        open=round(inputs.open * share),
        drainable=min(inputs.drainable, idle),
        fresh=min(inputs.fresh, idle + starting + busy),
    )

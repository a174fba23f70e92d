"""How many instances the work of a pool needs, and how many are worth keeping. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import ceil, sqrt

from swarm.scaler.model import Inputs, Limits, PoolMemory, Reckoning
from swarm.settings import PoolSettings, ScalerSettings

#: Seconds over which it is counted how many tasks end.
PACE_WINDOW_S = 5.0

#: (time, instances needed from then on).
Needs = Sequence[tuple[float, int]]


def reckon(
    pool: PoolSettings,
    scaler: ScalerSettings,
    inputs: Inputs,
    limits: Limits,
    waiting: int,
    memory: PoolMemory,
) -> tuple[Reckoning, PoolMemory]:
    """What the work needs, what is kept, and the memory with this turn in it.

    Who waits is served in turn, so the last one waits for as long as it takes the instances to end
    as many tasks as wait. What they end within the target wait needs nobody else. The rest needs
    places of its own; each takes one task as it starts, and `k` more in what is left of the target
    then. So long tasks give an exact count and short ones a backlog per place.
    """
    service_time_s, boot_time_s = times_s(pool, inputs)
    tasks_each = int(max(0.0, scaler.target_wait_s - boot_time_s) / service_time_s)
    ends = _lately(memory.ends, inputs.now - PACE_WINDOW_S)
    ends = (*ends, (inputs.now, inputs.ended))
    # An instance that reports again brings all that it has ever done.
    pace = min(_pace(ends), inputs.active / service_time_s)
    left = max(0.0, waiting - inputs.open - pace * scaler.target_wait_s)
    need = inputs.busy + ceil(left / (1 + tasks_each) / inputs.capacity)
    needs = _with(memory.needs, inputs.now, need, since=inputs.now - scaler.stabilisation_s)
    worth = worth_keeping(needs, inputs.now, scaler)
    keep = min(max(limits.minimum.count, need + limits.spare.count, worth), limits.maximum.count)
    reckoning = Reckoning(service_time_s, boot_time_s, pace, tasks_each, need, worth, keep)
    return reckoning, replace(memory, needs=needs, ends=ends)


def with_pace(memory: PoolMemory, inputs: Inputs, pace: float) -> PoolMemory:
    """A memory by which tasks end at this pace, where the turns before are not known."""
    before = inputs.ended - pace * PACE_WINDOW_S
    return replace(memory, ends=((inputs.now - PACE_WINDOW_S, before),))


def times_s(pool: PoolSettings, inputs: Inputs) -> tuple[float, float]:
    """Of a task and of a start: as measured, else as the configuration expects."""
    service_time_s, boot_time_s = inputs.service_time_s, inputs.boot_time_s
    return (
        pool.expected_service_time_s if service_time_s is None else max(0.01, service_time_s),
        pool.expected_boot_time_s if boot_time_s is None else boot_time_s,
    )


def worth_keeping(needs: Needs, now: float, scaler: ScalerSettings) -> int:
    """The most instances that the work of the stabilisation window would have kept in use.

    Of `n` instances, min(need, n) were in use at each moment, `m` in the mean. They are worth
    keeping while n <= m + reserve x sqrt(m): random arrivals make the need go up and down by its
    root (square-root staffing; Halfin and Whitt, Operations Research 29, 1981). A burst that is
    over was a small part of the window, and so none of its instances is; of a steady need all are,
    with a reserve.
    """
    since = now - scaler.stabilisation_s
    spells: dict[int, float] = {}
    for (at, need), (until, _) in pairwise((*needs, (now, 0))):
        spells[need] = spells.get(need, 0.0) + max(0.0, until - max(at, since))
    span = sum(spells.values())
    if span <= 0:
        return 0

    def is_worth(count: int) -> bool:
        mean = sum(min(need, count) * seconds for need, seconds in spells.items()) / span
        return count <= mean + scaler.reserve * sqrt(mean)

    # What is in use grows ever more slowly with the count: beyond the first that is not worth it
    # none is.
    most = max(spells)
    low, high = 0, ceil(most + scaler.reserve * sqrt(most))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if is_worth(middle) else (low, middle - 1)
    return low


def _pace(ends: Sequence[tuple[float, float]]) -> float:
    """Tasks that end in a second. An instance that is gone takes what it has done with it."""
    span = ends[-1][0] - ends[0][0]
    ended = sum(max(0, after - before) for (_, before), (_, after) in pairwise(ends))
    return ended / span if span > 0 else 0.0


def _lately(counts: Sequence[tuple[float, float]], since: float) -> tuple[tuple[float, float], ...]:
    return tuple((at, count) for at, count in counts if at >= since)


def _with(needs: Needs, now: float, need: int, *, since: float) -> tuple[tuple[float, int], ...]:
    """The needs with a new one, if it is another, without those that ended before `since`."""
    if not needs or needs[-1][1] != need:
        needs = (*needs, (now, need))
    ended = sum(until <= since for (_, _), (until, _) in pairwise(needs))
    return tuple(needs[ended:])

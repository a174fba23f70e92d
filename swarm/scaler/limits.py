"""Between which numbers of instances a pool may be now, and what set each of them. Pure.

config.yaml says what holds at all times, its schedules what holds in some hours, and people what
holds for now: the later word wins, for each number apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from swarm.scaler.model import InstanceKey, Limit, Limits
from swarm.scaler.schedules import current
from swarm.settings import PoolSettings, ScheduleSettings


@dataclass(frozen=True, slots=True)
class Override:
    """What somebody wants of a pool for a while; None leaves a number as it is."""

    set_by: str
    """For people: `set by anna until 14:30`."""
    minimum: int | None = None
    maximum: int | None = None
    spare: int | None = None
    no_starts: bool = False
    no_stops: bool = False


@dataclass(frozen=True, slots=True)
class Orders:
    """What people want now instead of what config.yaml says; whatever has ended is not in it."""

    overrides: Mapping[str, tuple[Override, ...]] = field(default_factory=dict)
    """By pool, the latest last."""
    pinned: frozenset[InstanceKey] = frozenset()
    """Instances that are kept, whatever the policy says."""
    drained: frozenset[str] = frozenset()
    """Hosts on which nothing is started, and that are emptied."""


def effective(pool: PoolSettings, at: datetime, overrides: Iterable[Override] = ()) -> Limits:
    """The pool's limits at this time, which has a timezone.

    Where minimum and maximum contradict each other, as one set a maximum below the minimum that
    another set, the maximum holds.
    """
    limits = Limits(
        Limit(pool.min_instances, "min_instances"),
        Limit(pool.max_instances, "max_instances"),
        Limit(pool.spare, "spare"),
    )
    scheduled = (_scheduled(schedule) for schedule, _ in current(pool.schedules, at))
    for override in (*scheduled, *overrides):
        limits = _overridden(limits, override)
    if limits.minimum.count > limits.maximum.count:
        limits = replace(limits, minimum=limits.maximum)
    return limits


def _scheduled(schedule: ScheduleSettings) -> Override:
    return Override(
        f"schedule {schedule.start}", schedule.min_instances, schedule.max_instances, schedule.spare
    )


def _overridden(limits: Limits, override: Override) -> Limits:
    def latest(limit: Limit, count: int | None) -> Limit:
        return limit if count is None else Limit(count, override.set_by)

    return Limits(
        latest(limits.minimum, override.minimum),
        latest(limits.maximum, override.maximum),
        latest(limits.spare, override.spare),
        override.set_by if override.no_starts else limits.no_starts,
        override.set_by if override.no_stops else limits.no_stops,
    )

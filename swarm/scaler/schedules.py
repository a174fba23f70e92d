"""Which of a pool's schedules hold at a time. Pure.

A window begins when the clock on the wall in its timezone says so, and lasts as long as it says:
ten hours are ten hours on the day on which the clocks change too. A beginning that the change skips
comes right after the gap, and one that it repeats comes once, as in Debian's cron.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim

from swarm.settings import ScheduleSettings


def current(
    schedules: Iterable[ScheduleSettings], at: datetime
) -> Iterator[tuple[ScheduleSettings, datetime]]:
    """Those whose window it is at `at`, which has a timezone, and when each one's ends."""
    for schedule in schedules:
        begun = _last_beginning(schedule, at)
        if begun is not None:
            yield schedule, begun + schedule.length


def _last_beginning(schedule: ScheduleSettings, at: datetime) -> datetime | None:
    """When the window began in which `at` lies; the latest, where windows overlap."""
    earliest, last = at - schedule.length, None
    # By the calendar of its timezone, so what comes may lie before `earliest` when clocks go back.
    for beginning in CronSim(schedule.start, earliest.astimezone(ZoneInfo(schedule.timezone))):
        moment = beginning.astimezone(UTC)
        if moment > at:
            break
        if moment > earliest:
            last = moment
    return last

"""Hours in which other limits hold, also when the clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from swarm.durations import parse_duration
from swarm.scaler.limits import Override, effective
from swarm.scaler.model import Limit
from swarm.scaler.schedules import current
from swarm.settings import ScheduleSettings
from tests.builders import make_pool

BERLIN = ZoneInfo("Europe/Berlin")


def make_schedule(start: str = "0 7 * * mon-fri", **fields: object) -> ScheduleSettings:
    return ScheduleSettings.model_validate(
        {"start": start, "duration": "10h", "timezone": "Europe/Berlin", "spare": 1, **fields}
    )


def holds(schedule: ScheduleSettings, at: datetime) -> bool:
    return bool(list(current([schedule], at)))


def berlin(text: str, *, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-11-27 06:59:59", False),
        ("2026-11-27 07:00:00", True),
        ("2026-11-27 16:59:59.9", True),
        ("2026-11-27 17:00:00", False),
        ("2026-11-28 12:00:00", False),
    ],
)
def test_a_window_begins_and_ends_by_the_clock_of_its_timezone(at: str, *, expected: bool) -> None:
    assert holds(make_schedule(), berlin(at)) is expected


def test_a_window_goes_on_over_midnight_and_tells_its_end() -> None:
    night = make_schedule("0 22 * * *", duration="8h")
    ((schedule, end),) = current([night], berlin("2026-11-28 05:00"))
    assert (schedule, end) == (night, berlin("2026-11-28 06:00"))


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25"])
def test_a_window_is_as_long_on_the_day_on_which_the_clocks_change(day: str) -> None:
    schedule = make_schedule("0 1 * * *")
    begun = berlin(f"{day} 01:00")
    assert not holds(schedule, begun - timedelta(seconds=1))
    assert holds(schedule, begun)
    assert holds(schedule, begun + timedelta(hours=10, seconds=-1))
    assert not holds(schedule, begun + timedelta(hours=10))


def test_a_beginning_that_the_clocks_skip_comes_right_after_the_gap() -> None:
    schedule = make_schedule("30 2 * * *", duration="1h")
    assert not holds(schedule, berlin("2026-03-29 01:59:59"))
    assert holds(schedule, berlin("2026-03-29 03:00:01"))


def test_a_beginning_that_the_clocks_repeat_comes_once() -> None:
    schedule = make_schedule("30 2 * * *", duration="30m")
    assert holds(schedule, berlin("2026-10-25 02:45"))
    assert not holds(schedule, berlin("2026-10-25 02:45", fold=1))
    assert not holds(schedule, berlin("2026-10-25 03:15"))


@pytest.mark.parametrize("minute", range(0, 60, 7))
def test_every_moment_of_a_day_of_windows_around_the_change_is_in_one(minute: int) -> None:
    """Windows of an hour that begin every hour leave no gap, whatever the clocks do."""
    schedule = make_schedule("0 * * * *", duration="1h")
    at = datetime(2026, 10, 24, 20, minute, tzinfo=UTC)
    for hours in range(12):
        assert holds(schedule, at + timedelta(hours=hours))


def test_a_schedule_takes_the_place_of_the_numbers_it_names() -> None:
    pool = make_pool(
        min_instances=1,
        spare=1,
        schedules=[
            {"start": "0 0 * * *", "duration": "24h", "min_instances": 2, "spare": 4},
            {"start": "0 8 * * *", "duration": "1h", "min_instances": 3},
        ],
    )
    morning = effective(pool, datetime(2026, 11, 27, 8, 30, tzinfo=UTC))
    assert (morning.minimum, morning.spare) == (
        Limit(3, "schedule 0 8 * * *"),
        Limit(4, "schedule 0 0 * * *"),
    )
    noon = effective(pool, datetime(2026, 11, 27, 12, 0, tzinfo=UTC))
    assert (noon.minimum.count, noon.maximum) == (2, Limit(6, "max_instances"))


def test_people_have_the_last_word() -> None:
    pool = make_pool(schedules=[{"start": "* * * * *", "duration": "1h", "min_instances": 3}])
    limits = effective(pool, datetime(2026, 11, 27, tzinfo=UTC), [Override("anna", minimum=1)])
    assert limits.minimum == Limit(1, "anna")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1h30m", 5400), ("2d", 172_800), ("1d2h3m4s", 93_784)],
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "0s", "10", "h", "-1h", "1.5h", "30m1h", "1 h", "99999999s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a duration such as"):
        parse_duration(text)

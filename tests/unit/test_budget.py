"""The budget of a metered broker: periods, what was used, where that leads."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.brokers.budget import Budget, Ledger, outlook

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
MONTH = Budget(500_000, "month")


def ledger_of(per_hour: int, *, hours: float = 1.0, used: int = 0) -> Ledger:
    """One that has counted a steady load up to NOW."""
    began = NOW - timedelta(hours=hours)
    ledger = Ledger(MONTH.began(NOW), {"earlier": used}).resumed(began)
    steps = int(hours * 60)
    for step in range(1, steps + 1):
        share = per_hour * step // 60 - per_hour * (step - 1) // 60
        ledger = ledger.add("workers", share, began + timedelta(minutes=step))
    return ledger


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500000/month", Budget(500_000, "month")), ("10000/day", Budget(10_000, "day"))],
)
def test_a_budget_is_a_number_for_a_time(text: str, expected: Budget) -> None:
    assert Budget.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "500000", "0/month", "-1/day", "5e5/month", "5/week", "1 /day"]
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not like 500000/month"):
        Budget.parse(text)


@pytest.mark.parametrize(
    ("reset_day", "now", "began", "ends"),
    [
        (1, "2026-11-26", "2026-11-01", "2026-12-01"),
        (1, "2026-12-01", "2026-12-01", "2027-01-01"),
        (28, "2026-03-01", "2026-02-28", "2026-03-28"),
        (15, "2027-01-03", "2026-12-15", "2027-01-15"),
        (15, "2027-01-15", "2027-01-15", "2027-02-15"),
        (28, "2028-02-28", "2028-02-28", "2028-03-28"),
    ],
)
def test_a_month_begins_on_its_reset_day(reset_day: int, now: str, began: str, ends: str) -> None:
    budget = Budget(1, "month", reset_day)
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert budget.began(at).date().isoformat() == began
    assert budget.ends(at).date().isoformat() == ends


def test_days_are_those_of_utc() -> None:
    budget = Budget(1, "day")
    east = datetime.fromisoformat("2026-11-26T01:30+05:00")
    assert budget.began(east) == datetime(2026, 11, 25, tzinfo=UTC)
    assert budget.ends(east) == datetime(2026, 11, 26, tzinfo=UTC)


@given(
    st.integers(0, 4_000_000_000).map(lambda epoch: datetime.fromtimestamp(epoch, UTC)),
    st.integers(1, 28),
    st.sampled_from(["month", "day"]),
)
def test_every_moment_lies_in_its_period(now: datetime, reset_day: int, per: str) -> None:
    budget = Budget(1, per, reset_day)  # type: ignore[arg-type]
    began, ends = budget.began(now), budget.ends(now)
    assert began <= now < ends
    assert budget.ends(began) == ends
    assert budget.began(ends) == ends
    assert budget.began(ends - timedelta(seconds=1)) == began


def test_a_steady_load_is_expected_to_go_on() -> None:
    seen = outlook(ledger_of(600), MONTH, NOW)
    assert seen.used == 600
    assert seen.per_hour == pytest.approx(600, rel=0.02)
    hours_left = 4 * 24 + 12
    assert seen.expected == pytest.approx(600 + 600 * hours_left, rel=0.02)
    assert seen.exhausted_at is None
    assert seen.stretch == 1


def test_no_rate_is_made_up_after_a_start() -> None:
    ledger = Ledger(MONTH.began(NOW), {"workers": 1000}).resumed(NOW)
    seen = outlook(ledger, MONTH, NOW + timedelta(minutes=2))
    assert (seen.used, seen.per_hour, seen.expected) == (1000, None, None)


def test_the_day_on_which_it_is_used_up_is_told() -> None:
    seen = outlook(ledger_of(2000, used=400_000), MONTH, NOW)
    assert seen.expected is not None
    assert seen.expected > MONTH.limit
    assert seen.exhausted_at is not None
    assert seen.exhausted_at - NOW == pytest.approx(timedelta(hours=49), abs=timedelta(hours=2))
    assert seen.stretch == 8


def test_beyond_the_limit_it_is_used_up_now_though_nobody_asks() -> None:
    ledger = Ledger(MONTH.began(NOW), {"workers": 500_001}).resumed(NOW - timedelta(hours=1))
    seen = outlook(ledger, MONTH, NOW)
    assert (seen.per_hour, seen.expected, seen.exhausted_at) == (0, 500_001, NOW)
    assert seen.stretch == 8


@pytest.mark.parametrize(
    ("used", "warning"), [(349_000, None), (350_000, 0.7), (450_000, 0.9), (600_000, 0.9)]
)
def test_people_are_told_in_time(used: int, warning: float | None) -> None:
    ledger = Ledger(MONTH.began(NOW), {"workers": used})
    assert outlook(ledger, MONTH, NOW).warning == warning


def test_what_is_in_the_queues_is_kept_a_rest_for() -> None:
    def is_for_the_rest(used: int, tasks: int) -> bool:
        seen = outlook(Ledger(MONTH.began(NOW), {"workers": used}), MONTH, NOW)
        return seen.is_for_the_rest(tasks, 6.0)

    assert not is_for_the_rest(499_000, 111)
    assert is_for_the_rest(499_000, 112)
    assert not is_for_the_rest(499_999, 0)
    assert is_for_the_rest(500_000, 0)


def test_a_new_period_starts_at_nothing() -> None:
    ledger = ledger_of(600).correct(100_000)
    assert ledger.total == 100_000
    later = ledger.at(datetime(2026, 12, 1, tzinfo=UTC), MONTH)
    assert later.total == 0
    # What was said of the month before is not said of this one.
    assert later.correct(100_000).total == 0
    assert later.correct(5).total == 5


@pytest.mark.parametrize("wrong", [datetime(1970, 1, 1, tzinfo=UTC), NOW + timedelta(days=4000)])
def test_a_clock_that_is_wrong_for_a_while_loses_nothing(wrong: datetime) -> None:
    """A host may boot with its clock years behind, until the network tells it the time."""
    ledger = ledger_of(600, used=1000).correct(9000)
    astray = ledger.at(wrong, MONTH).add("workers", 3, wrong)
    assert astray.total == 3
    astray = Ledger.from_json(json.loads(json.dumps(astray.to_json())))
    back = astray.at(NOW, MONTH).add("workers", 5, NOW).correct(9000)
    assert back.total == 9005
    assert back.used == {"earlier": 1000, "workers": 605}
    # The period after this one begins at nothing all the same.
    assert back.at(datetime(2026, 12, 1, tzinfo=UTC), MONTH).total == 0


def test_a_clock_that_is_set_back_leaves_a_rate() -> None:
    ledger, now = ledger_of(600), NOW - timedelta(days=1)
    for _ in range(10):
        now += timedelta(minutes=1)
        ledger = ledger.at(now, MONTH).add("workers", 20, now)
    seen = outlook(ledger, MONTH, now)
    assert seen.used == 800
    assert seen.per_hour == pytest.approx(1200, rel=0.2)


def test_what_the_service_says_counts_once() -> None:
    ledger = Ledger(MONTH.began(NOW)).add("workers", 100, NOW).correct(2000)
    assert ledger.total == 2000
    ledger = ledger.add("workers", 50, NOW).correct(2000)
    assert ledger.total == 2050
    assert ledger.correct(10).total == 10


def test_a_ledger_survives_a_restart() -> None:
    ledger = ledger_of(600, used=7).correct(9000)
    again = Ledger.from_json(json.loads(json.dumps(ledger.to_json())))
    assert again.total == ledger.total == 9000
    assert again.correct(9000).total == 9000
    assert again.used == ledger.used


@pytest.mark.parametrize(
    "document",
    [{}, {"version": 2}, {"version": 1, "began": "2026-11-01", "used": {}, "said": 0}],
)
def test_a_damaged_ledger_is_no_ledger(document: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        Ledger.from_json(document)


@given(st.lists(st.tuples(st.integers(0, 7200), st.integers(0, 50)), max_size=60))
def test_nothing_that_is_counted_gets_lost(steps: list[tuple[int, int]]) -> None:
    ledger, now = Ledger(MONTH.began(NOW)).resumed(NOW), NOW
    for seconds, requests in steps:
        now += timedelta(seconds=seconds)
        ledger = ledger.add("workers", requests, now)
    assert ledger.total == sum(requests for _, requests in steps)
    assert len(ledger.recent) <= 62

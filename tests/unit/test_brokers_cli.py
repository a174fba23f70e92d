"""What `swarm brokers` tells of a broker beyond its own question."""

from __future__ import annotations

from typing import Any

from swarm.brokers_cli import describe

WELL: dict[str, Any] = {"answers": True, "reason": "", "down_for_s": None, "age_s": 1}
BUDGET: dict[str, Any] = {
    "used": 12_345,
    "limit": 500_000,
    "resets_at": "2026-12-01T00:00:00+00:00",
    "per_hour": 600.4,
    "expected": 66_000,
    "exhausted_at": None,
    "takes_tasks": True,
    "requests_per_task": 7.5,
    "by_component": {"workers": 10_000, "producers": 2_000, "scaler": 345},
}


def test_where_no_scaler_runs_nothing_is_told() -> None:
    assert list(describe(None)) == []


def test_a_broker_without_a_budget() -> None:
    assert list(describe(WELL)) == ["to the scaler it answers, 1 s ago"]


def test_one_that_is_down_says_since_when_and_why() -> None:
    down = {**WELL, "answers": False, "down_for_s": 42.4, "reason": "Connection refused"}
    assert list(describe(down)) == [
        "to the scaler it is down for 42 s, 1 s ago (Connection refused)"
    ]


def test_a_budget_with_its_forecast() -> None:
    assert list(describe({**WELL, "budget": BUDGET}))[1:] == [
        "12,345 of 500,000 requests used (2.5 %) until 2026-12-01 00:00 UTC",
        "600 an hour: 66,000 by then",
        "by producers 2,000, scaler 345, workers 10,000",
    ]


def test_a_budget_that_will_not_last() -> None:
    short = {
        **BUDGET,
        "expected": 600_000,
        "exhausted_at": "2026-11-29T13:00:00+00:00",
        "takes_tasks": False,
    }
    told = list(describe({**WELL, "budget": short}))
    assert told[2] == "600 an hour: 600,000 by then; used up on 2026-11-29 13:00 UTC"
    assert told[-1] == "it takes no more tasks: what remains is for those that it has"


def test_in_the_first_minutes_there_is_no_forecast() -> None:
    fresh = {**BUDGET, "per_hour": None, "expected": None, "by_component": {}}
    assert list(describe({**WELL, "budget": fresh}))[1:] == [
        "12,345 of 500,000 requests used (2.5 %) until 2026-12-01 00:00 UTC"
    ]

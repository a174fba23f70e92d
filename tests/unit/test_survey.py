"""What surveys of the broker prove: who is never robbed, and who is given up in time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarm.delivery import scripts
from swarm.delivery.holder import LEASE_AFTER_S, LEASE_S, RENEWAL_S
from swarm.delivery.survey import (
    Attention,
    Held,
    Patience,
    QueueSight,
    Rhythm,
    Sightings,
    Survey,
    parse_survey,
    pause_s,
)

PATIENCE = Patience()
RHYTHM = Rhythm()
EMPTY = QueueSight(0, None, rung=False)


#: Epoch seconds at the broker when the reaper's clock says 0.
EPOCH_S = 1.7e9


def survey(
    at: float, *holders: Held, took_s: float = 0.0, ahead_s: float = 0.0, **queues: QueueSight
) -> Survey:
    return Survey(at, at + took_s, EPOCH_S + at + ahead_s, queues, holders)


def held(*tags: str, lease_left_s: float | None = None, holder: str = "h1:browser:1:a") -> Held:
    return Held(holder, lease_left_s, tags)


def watch(*surveys: Survey) -> Sightings:
    sightings = Sightings()
    for each in surveys:
        sightings = sightings.after(each, PATIENCE)
    return sightings


def lost(*surveys: Survey) -> dict[str, tuple[str, ...]]:
    return watch(*surveys).lost(PATIENCE)


def every_10_s(*seen: Held | None, start: float = 0.0) -> list[Survey]:
    return [
        survey(start + 10 * n, *([each] if each else []), took_s=0.01)
        for n, each in enumerate(seen)
    ]


def test_the_durations_are_those_that_holders_keep() -> None:
    assert PATIENCE.lease_s == LEASE_S
    assert PATIENCE.gap_s < RENEWAL_S
    # One renewal may fail, first or later.
    assert LEASE_AFTER_S + 2 * RENEWAL_S < LEASE_S
    assert PATIENCE.slow_s < PATIENCE.jump_s < LEASE_S - 2 * RENEWAL_S
    assert RHYTHM.close_s + PATIENCE.slow_s < PATIENCE.gap_s
    assert f"local LEASE_TTL = {LEASE_S} " in scripts.TAKE.text


T = held("t")
LEASED = held("t", lease_left_s=30.0)
LOST = {"h1:browser:1:a": ("t",)}


@pytest.mark.parametrize(
    "surveys",
    [
        pytest.param(every_10_s(*[T] * 7), id="no lease for a lease's time"),
        pytest.param(every_10_s(*[LEASED] * 6, T), id="its lease ended while it was watched"),
        pytest.param(every_10_s(LEASED, *[T] * 6), id="a lease, perhaps for another message"),
        pytest.param(every_10_s(*[held("t")] * 3, *[held("t", "u")] * 5), id="with a younger one"),
        pytest.param(
            [survey(10 * n, T, ahead_s=0.9 * n) for n in range(7)],
            id="the broker's clock is corrected little by little",
        ),
    ],
)
def test_what_nobody_keeps_is_lost_after_a_leases_time_and_not_before(
    surveys: list[Survey],
) -> None:
    assert lost(*surveys) == LOST
    for count in range(6):
        assert lost(*surveys[:count]) == {}


@pytest.mark.parametrize(
    "surveys",
    [
        pytest.param(every_10_s(*[LEASED] * 100), id="leased"),
        pytest.param(every_10_s(*[held(f"t{n}") for n in range(100)]), id="many short tasks"),
        pytest.param(every_10_s(T, T, T, None, *[T] * 6), id="gone from the list in between"),
        pytest.param(
            every_10_s(*[T] * 3, *[held("t", holder="h2:browser:1:b")] * 6), id="another holder"
        ),
        pytest.param([survey(0, T), survey(300, T)], id="nobody looked in between"),
        pytest.param(
            [*every_10_s(*[T] * 4), *every_10_s(*[T] * 6, start=50)], id="a survey failed"
        ),
        pytest.param(
            [*every_10_s(*[T] * 6), survey(60, T, took_s=1.1), *every_10_s(*[T] * 5, start=70)],
            id="the broker answered slowly",
        ),
        pytest.param(
            [survey(300 * n, LEASED if n < 9 else T) for n in range(10)],
            id="the broker may have been away for minutes",
        ),
        pytest.param(
            [
                *every_10_s(*[LEASED] * 7),
                *(survey(70 + 10 * n, T, ahead_s=60) for n in range(6)),
            ],
            id="the broker's clock was put forward",
        ),
        pytest.param(
            [*every_10_s(*[T] * 6), *(survey(60 + 10 * n, T, ahead_s=-60) for n in range(6))],
            id="the broker's clock was put back",
        ),
    ],
)
def test_what_may_be_in_good_hands_is_not_lost(surveys: list[Survey]) -> None:
    for count in range(len(surveys) + 1):
        assert lost(*surveys[:count]) == {}


QUIET = survey(0, browser=EMPTY)


@pytest.mark.parametrize(
    ("surveys", "attention", "pause"),
    [
        ([QUIET], {}, 300),
        ([survey(0, held("t", lease_left_s=50))], {}, 300),
        ([QUIET], {"busy": True}, 30),
        ([survey(0, T)], {}, 30),
        ([survey(0, T), survey(30, T)], {}, 10),
        ([survey(0, T), survey(30, held("u"))], {}, 30),
        ([survey(0, T), survey(30, LEASED)], {}, 300),
        ([QUIET], {"close": True}, 10),
        # Just when it may be lost, not up to ten seconds later.
        ([*every_10_s(*[T] * 6)], {"close": True}, 10),
        ([*every_10_s(*[T] * 6), survey(57, T)], {"close": True}, 3),
        ([*every_10_s(*[LEASED] * 20)], {"close": True}, 10),
        ([*every_10_s(*[LEASED] * 20), survey(200, held("t", lease_left_s=4))], {"close": True}, 4),
        ([*every_10_s(*[T] * 20)], {"close": True}, 2),
        ([survey(0, browser=QueueSight(0, 45.0, rung=True))], {}, 300),
        ([survey(0, browser=QueueSight(0, 45.0, rung=True))], {"untended": {"browser"}}, 45),
        ([survey(0, browser=QueueSight(0, 0.0, rung=True))], {"untended": {"browser"}}, 2),
        ([survey(0, browser=QueueSight(0, 900.0, rung=True))], {"untended": {"browser"}}, 300),
        ([survey(0, browser=QueueSight(0, 45.0, rung=True))], {"untended": {"other"}}, 300),
    ],
)
def test_when_to_look_again(surveys: list[Survey], attention: dict[str, Any], pause: float) -> None:
    told = Attention(**attention)
    assert pause_s(surveys[-1], watch(*surveys), told, RHYTHM, PATIENCE) == pytest.approx(pause)


def test_a_budget_that_is_nearly_used_makes_pauses_longer_but_where_something_is_wrong() -> None:
    rhythm = Rhythm(idle_s=300, busy_s=30, close_s=10)
    assert rhythm.stretched(1.0) == rhythm.stretched(0.5) == rhythm
    assert rhythm.stretched(2.0) == replace(rhythm, idle_s=600, busy_s=60)
    assert rhythm.stretched(8.0) == replace(rhythm, idle_s=1200, busy_s=120)


def test_an_answer_is_read() -> None:
    queues, holders = (
        [3, -1, 1, 0, 7500, 0],
        [b"h:browser:1:x", 30500, [b"t", b"\xff"], b"i", -2, []],
    )
    reply = [5000, 17, *queues, *holders]
    read = parse_survey(reply, ["browser", "analysis"], asked_at=1.0, answered_at=1.5)
    assert (read.asked_at, read.answered_at, read.broker_s) == (1.0, 1.5, 5.0)
    assert read.queues == {
        "browser": QueueSight(3, None, rung=True),
        "analysis": QueueSight(0, 2.5, rung=False),
    }
    assert read.holders == (
        Held("h:browser:1:x", 30.5, ("t", "\udcff")),
        Held("i", None, ()),
    )
    assert read.unleased == frozenset()
    assert (read.producers_requests, read.tasks) == (17, 5)
    assert replace(read, holders=(held("t"),)).unleased == {("h1:browser:1:a", "t")}


@pytest.mark.parametrize(
    "reply",
    [[], None, [1, 0, 2, 3], [1, 0, 2, 3, 4, b"holder"], [1, 0, None, 3, 4], [1, None, 2, 3, 4]],
)
def test_another_answer_is_refused(reply: Any) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        parse_survey(reply, ["browser"], asked_at=0, answered_at=0)

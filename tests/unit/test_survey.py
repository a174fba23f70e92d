"""What surveys of the broker prove: who is never robbed, and who is given up in time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


# A world in which everything is known, to compare with.


@dataclass
class Broker:
    """Leases as Redis keeps them, by a clock that may be set; away at times."""

    outages: list[tuple[float, float]]
    jumps: list[tuple[float, float]]
    """When its clock is set, and by how much."""
    lease_until: dict[str, float] = field(default_factory=dict)
    returned: list[str] = field(default_factory=list)
    """What somebody held before, and whoever takes it next has a lease for."""

    def is_there(self, now: float) -> bool:
        return not any(begin <= now < end for begin, end in self.outages)

    def clock(self, now: float) -> float:
        return EPOCH_S + now + sum(by for at, by in self.jumps if at <= now)

    def lease(self, holder: str, now: float) -> None:
        self.lease_until[holder] = self.clock(now) + LEASE_S

    def lease_left_s(self, holder: str, now: float) -> float | None:
        left = self.lease_until.get(holder, 0.0) - self.clock(now)
        return left if left > 0 else None


class Worker:
    """Holds messages and keeps a lease as swarm.delivery.holder does."""

    def __init__(self, name: str, broker: Broker, chance: Random) -> None:
        self.name, self.broker, self.chance = name, broker, chance
        self.since: dict[str, float] = {}
        self.ends: dict[str, float] = {}
        self.held: set[str] = set()
        self.count = 0
        self.next_tick = chance.uniform(0, RENEWAL_S)
        self.vanished_at: float | None = None

    def live(self, now: float) -> None:
        """One tenth of a second of its life."""
        if self.vanished_at is not None and now >= self.vanished_at:
            return
        there = self.broker.is_there(now)
        for tag in [tag for tag, end in self.ends.items() if end <= now and there]:
            del self.ends[tag], self.since[tag]
            self.held.discard(tag)
            if self.chance.random() < 0.3:
                # Its process died, or it was rejected.
                self.broker.returned.append(tag)
        if there and len(self.held) < 2 and self.chance.random() < 0.05:
            self.count += 1
            tag, since = f"{self.name}-{self.count}", now
            if self.broker.returned:
                tag, since = self.broker.returned.pop(), float("-inf")
                self.broker.lease(self.name, now)
            self.held.add(tag)
            self.since[tag] = since
            length = self.chance.choice([0.3, 3, 12, 20, 40, 70, 300])
            self.ends[tag] = now + length * self.chance.uniform(0.5, 1.5)
        if now >= self.next_tick:
            self.next_tick += RENEWAL_S + self.chance.uniform(0, 0.2)
            if there and any(now - since >= LEASE_AFTER_S for since in self.since.values()):
                self.broker.lease(self.name, now)


def look(now: float, broker: Broker, workers: list[Worker]) -> Survey | None:
    if not broker.is_there(now):
        return None
    holders = tuple(
        Held(worker.name, broker.lease_left_s(worker.name, now), tuple(sorted(worker.held)))
        for worker in workers
    )
    return Survey(now, now + 0.01, broker.clock(now), {}, holders)


def troubles(seed: int) -> list[tuple[float, float]]:
    """(begin, end) of a broker's outages; what follows one has time to recover from it."""
    chance = Random(seed)
    now, periods = 0.0, []
    while now < 700:
        begin = now + chance.uniform(0, 60)
        # Short ones fall between two surveys: the reaper never knows of them.
        now = begin + chance.choice([chance.uniform(0.1, 9), chance.uniform(40, 150)])
        periods.append((begin, now))
        now += LEASE_S
    return periods


@dataclass
class World:
    """Three workers, of which one may vanish, and a reaper.

    It looks closely, as when a host is away, or at a fixed rhythm.
    """

    seed: int
    rhythm_s: float | None = None
    outages: list[tuple[float, float]] = field(default_factory=list)
    jumps: list[tuple[float, float]] = field(default_factory=list)
    vanishes: bool = False

    def __post_init__(self) -> None:
        chance = Random(self.seed)
        self.broker = Broker(self.outages, self.jumps)
        self.workers = [Worker(f"w{n}", self.broker, chance) for n in range(3)]
        self.first, *_ = self.workers
        if self.vanishes:
            self.first.vanished_at = chance.uniform(50, 400)
        self.next_look = chance.uniform(0, self.rhythm_s or RHYTHM.close_s)
        self.sightings = Sightings()
        self.lost_at: list[float] = []

    def run(self, seconds: int) -> None:
        for step in range(10 * seconds):
            now = step / 10
            for worker in self.workers:
                worker.live(now)
            if now >= self.next_look:
                self.next_look = now + self.reap(now)

    def reap(self, now: float) -> float:
        """Look once; returns the seconds until the next look."""
        seen = look(now, self.broker, self.workers)
        if seen is None:
            self.sightings = Sightings()
            return self.rhythm_s or RHYTHM.close_s
        self.sightings = self.sightings.after(seen, PATIENCE)
        for holder, tags in self.sightings.lost(PATIENCE).items():
            assert holder == self.first.name, f"{tags} taken from {holder}, which lives, at {now}"
            assert self.first.vanished_at is not None, f"{tags} taken at {now}"
            assert now > self.first.vanished_at
            self.first.held.difference_update(tags)
            self.lost_at.append(now)
        close = pause_s(seen, self.sightings, Attention(close=True), RHYTHM, PATIENCE)
        return self.rhythm_s or close


seeds = st.integers(0, 2**32)


@settings(max_examples=300)
@given(seed=seeds, rhythm_s=st.sampled_from([None, 2.0, 13.0, 30.0, 300.0]))
def test_no_living_worker_is_ever_robbed(seed: int, rhythm_s: float | None) -> None:
    world = World(seed, rhythm_s, troubles(seed))
    world.run(700)
    assert world.lost_at == []


jumps = st.tuples(st.floats(0, 400), st.one_of(st.floats(-3600, 3600), st.floats(-60, 120)))


@settings(max_examples=300)
@given(
    seed=seeds,
    rhythm_s=st.sampled_from([None, 2.0, 13.0]),
    jumps=st.lists(jumps, min_size=1, max_size=4),
)
def test_a_clock_of_the_broker_that_is_set_robs_nobody(
    seed: int, rhythm_s: float | None, jumps: list[tuple[float, float]]
) -> None:
    world = World(seed, rhythm_s, jumps=jumps)
    world.run(500)
    assert world.lost_at == []


@given(seed=seeds)
def test_a_vanished_worker_is_given_up_within_75_s(seed: int) -> None:
    world = World(seed, vanishes=True)
    world.run(500)
    assert world.first.vanished_at is not None
    assert world.first.held == set()
    assert all(at - world.first.vanished_at <= 75 for at in world.lost_at)


@given(seed=seeds, begin=st.floats(0, 500), length_s=st.floats(0.1, 200))
def test_after_an_outage_a_vanished_worker_has_one_more_lease(
    seed: int, begin: float, length_s: float
) -> None:
    world = World(seed, outages=[(begin, begin + length_s)], vanishes=True)
    world.run(800)
    assert world.first.vanished_at is not None
    assert world.first.held == set()
    assert all(at <= max(world.first.vanished_at, begin + length_s) + 75 for at in world.lost_at)

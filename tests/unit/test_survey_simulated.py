"""Surveys of a world in which all is known: who lives is not robbed, who vanished is given up."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.delivery.holder import LEASE_AFTER_S, LEASE_S, RENEWAL_S
from swarm.delivery.survey import (
    Attention,
    Held,
    Patience,
    Rhythm,
    Sightings,
    Survey,
    pause_s,
)

PATIENCE = Patience()
RHYTHM = Rhythm()
#: Epoch seconds at the broker when the reaper's clock says 0.
EPOCH_S = 1.7e9


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

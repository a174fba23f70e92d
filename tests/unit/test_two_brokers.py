"""Turns over two brokers: what one holds is done while the other is down; nothing is mixed up."""

from __future__ import annotations

from typing import Any

from swarm.scaler.model import InstanceState, Outcome, Start, Stop
from swarm.scaler.reconcile import Reconciler
from swarm.settings import Settings
from tests.builders import AT, UNHURRIED, make_two_brokers
from tests.fakes import FakeBroker, FakeUnits

PRIMARY, FALLBACK = "browser", "browser-fallback"


class World:
    """A reconciler with its fakes; `turn` advances the clock by two seconds."""

    def __init__(self, configured: Settings | None = None) -> None:
        self.settings = configured or make_two_brokers(scaler=UNHURRIED)
        self.primary, self.fallback = FakeBroker(), FakeBroker()
        self.hosts = {name: FakeUnits(name, clock=lambda: self.now) for name in self.settings.hosts}
        self.now = 1000.0
        self.reconciler = Reconciler(
            self.settings,
            {"primary": self.primary.side, "fallback": self.fallback.side},
            self.hosts,
        )

    def add(self, number: int, state: str = "idle", *, pool: str = PRIMARY, **fields: Any) -> None:
        fields = {"idle_for_s": 5.0, "state_for_s": 600.0, "connected": True, **fields}
        self.hosts["h1"].add(pool, number, InstanceState(state), **fields)

    async def turn(self) -> Outcome:
        self.now += 2
        for side in (self.primary, self.fallback):
            if side.view.down_for_s is not None:
                side.view.down_for_s += 2
        return await self.reconciler.turn(self.now, at=AT)

    async def turns(self, count: int) -> Outcome:
        for _ in range(count - 1):
            await self.turn()
        return await self.turn()

    def running(self, pool: str) -> list[int]:
        return [number for name, number in self.hosts["h1"].instances if name == pool]

    @property
    def stops(self) -> list[Stop]:
        return [action for action in self.hosts["h1"].asked if isinstance(action, Stop)]


async def test_each_broker_has_its_pool_started_by_what_it_holds_itself() -> None:
    world = World()
    world.fallback.queues.lengths["browser"] = 3
    outcome = await world.turn()
    assert outcome.observation.waiting == {PRIMARY: 0, FALLBACK: 3}
    assert outcome.decisions[FALLBACK].desired == 1
    assert [result.action for result in outcome.results] == [
        Start("h1", FALLBACK, 1),
        Start("h1", PRIMARY, 1),
    ]


async def test_the_hosts_of_a_broker_that_is_down_go_to_what_the_other_one_holds() -> None:
    world = World()
    for number in (1, 2, 3):
        world.add(number, connected=False)
    world.add(4, "busy", connected=False, active=1)
    world.primary.lose()
    world.fallback.queues.lengths["browser"] = 100
    outcome = await world.turns(14)
    assert world.stops == [], "not before it is confirmed"
    assert outcome.decisions[PRIMARY].cause == "queue-unknown"
    outcome = await world.turns(8)
    assert outcome.decisions[PRIMARY].reason == (
        "holding: primary is down for 44 s: Connection refused"
    )
    # The busy one stays, whatever its broker does.
    assert world.running(PRIMARY) == [4]
    assert len(world.running(FALLBACK)) == 3
    asked = len(world.hosts["h1"].asked)
    await world.turns(20)
    assert len(world.hosts["h1"].asked) == asked, "nothing is started anew on the primary"


async def test_as_many_give_way_as_the_fallback_needs() -> None:
    world = World()
    for number in (1, 2, 3, 4):
        world.add(number, connected=False)
    world.primary.lose(down_for_s=100)
    world.fallback.queues.lengths["browser"] = 3
    await world.turns(10)
    assert len(world.stops) == 1
    assert (len(world.running(PRIMARY)), len(world.running(FALLBACK))) == (3, 1)


async def test_without_work_elsewhere_everybody_stays() -> None:
    world = World()
    for number in (1, 2, 3, 4):
        world.add(number, connected=False, idle_for_s=1e6)
    world.primary.lose()
    await world.turns(300)
    assert world.hosts["h1"].asked == []


async def test_whoever_still_reaches_the_broker_stays() -> None:
    world = World()
    for number in (1, 2, 3, 4):
        world.add(number)
    world.primary.lose(down_for_s=100)
    world.fallback.queues.lengths["browser"] = 100
    await world.turns(20)
    assert world.stops == []


async def test_a_queue_that_is_merely_unknown_makes_nobody_give_way() -> None:
    world = World()
    for number in (1, 2, 3, 4):
        world.add(number, connected=False)
    world.primary.queues.away = world.primary.view.away = "Flower refused the password"
    world.fallback.queues.lengths["browser"] = 100
    outcome = await world.turns(300)
    assert world.stops == []
    assert outcome.decisions[PRIMARY].cause == "queue-unknown"


async def test_when_it_answers_again_its_pools_are_started_by_the_usual_policy() -> None:
    world = World()
    world.primary.lose(down_for_s=100)
    world.primary.queues.lengths["browser"] = 5
    await world.turns(5)
    assert world.running(PRIMARY) == []
    world.primary.find()
    outcome = await world.turn()
    assert outcome.decisions[PRIMARY].reason == "5 waiting"
    assert len(world.running(PRIMARY)) == 2


async def test_the_fallback_goes_back_to_zero() -> None:
    world = World()
    world.primary.lose(down_for_s=100)
    world.fallback.queues.lengths["browser"] = 2
    await world.turns(2)
    assert world.running(FALLBACK) == [1]
    world.add(1, pool=FALLBACK, idle_for_s=600.0)
    world.fallback.queues.lengths["browser"] = 0
    world.primary.find()
    await world.turn()
    world.add(1)
    await world.turns(100)
    assert world.running(FALLBACK) == []
    assert world.running(PRIMARY) == [1]


async def test_a_broker_that_is_down_is_no_longer_asked_for() -> None:
    world = World()
    world.add(1, "busy", connected=False, active=1)
    world.primary.lose(down_for_s=100)
    await world.turns(50)
    assert (world.primary.queues.asked, world.primary.view.ages) == (0, [])
    assert world.fallback.view.ages

"""How much waits on one broker: who is asked, and that the other broker's queues are not."""

from __future__ import annotations

from math import inf

from swarm.scaler.backlog import Backlog
from swarm.scaler.model import HostReport, Instance, Unknown
from swarm.scaler.ports import BrokerSide
from tests.builders import make_instance, make_two_brokers
from tests.fakes import FakeQueues, FakeView

SETTINGS = make_two_brokers()


class Side:
    """One broker's sources, and the backlog that asks them."""

    def __init__(self, broker: str = "primary", length: int = 0, *, metered: bool = False) -> None:
        self.queues = FakeQueues({"browser": length})
        self.view = FakeView(self.queues)
        own = SETTINGS.pools_on("fallback" if broker == "fallback" else "primary")
        self.backlog = Backlog(
            own,
            SETTINGS.scaler,
            BrokerSide(self.queues, self.view, metered=metered),
            elsewhere=SETTINGS.pools.keys() - own.keys(),
        )

    async def waiting(self, *instances: Instance, now: float = 1000.0) -> dict[str, int | Unknown]:
        return await self.backlog.waiting(now, {"h1": HostReport(instances)})


def waiting(pool: str) -> Instance:
    return make_instance(1, pool=pool, waits=True, idle_for_s=5.0, connected=True)


async def test_an_instance_waits_on_the_queues_of_its_own_broker_only() -> None:
    primary, fallback = Side("primary", 7), Side("fallback", 9)
    assert await primary.waiting(waiting("browser")) == {"browser": 0}
    assert await fallback.waiting(waiting("browser")) == {"browser-fallback": 9}
    assert await primary.waiting(waiting("browser-fallback")) == {"browser": 7}
    assert await fallback.waiting(waiting("browser-fallback")) == {"browser-fallback": 0}


async def test_what_is_untended_on_one_broker_is_not_so_on_the_other() -> None:
    primary, fallback = Side("primary"), Side("fallback")
    for side in (primary, fallback):
        await side.waiting(waiting("browser"))
    assert primary.view.attention.untended == frozenset()
    assert fallback.view.attention.deserted == {"browser"}


async def test_silence_of_an_instance_calls_for_a_look_at_its_own_broker_only() -> None:
    primary, fallback = Side("primary"), Side("fallback")
    for side in (primary, fallback):
        await side.waiting(make_instance(1, "unreported"))
    assert primary.view.attention.close
    assert not fallback.view.attention.close


async def test_an_instance_of_a_forgotten_pool_may_be_of_any_broker() -> None:
    for side in (Side("primary"), Side("fallback")):
        await side.waiting(make_instance(1, "unreported", pool="forgotten"))
        assert side.view.attention.close


async def test_a_broker_that_fails_is_not_asked_again_in_each_turn() -> None:
    side = Side()
    await side.waiting()
    side.view.away, side.view.down_for_s = "gone", 4.0
    assert await side.waiting(now=1002.0) == {"browser": Unknown("gone")}
    side.view.away = side.view.down_for_s = None
    await side.waiting(now=1004.0)
    assert side.view.ages == [0.0, inf, 1.0]


async def test_of_one_that_is_confirmed_down_nobody_is_asked_until_it_is_back() -> None:
    side = Side(length=3)
    busy = HostReport((make_instance(1, "busy", connected=False),))
    for now in (1000.0, 2000.0):
        answer = side.backlog.given_up(now, {"h1": busy}, "primary is down")
        assert answer == {"browser": Unknown("primary is down")}
    assert (side.queues.asked, side.view.ages) == (0, [])
    # It is still looked after.
    assert side.view.attention.close
    assert await side.waiting(now=2002.0) == {"browser": 3}
    assert side.view.ages == [0.5]


async def test_a_metered_broker_is_looked_at_more_and_more_rarely_while_a_pile_lasts() -> None:
    side, busy = Side(length=5, metered=True), make_instance(1, "busy")
    for now in (1000.0, 1002.0, 1040.0, 1200.0):
        assert await side.waiting(busy, now=now) == {"browser": 5}
    assert side.view.ages == [0.0, 0.5, 10.0, 30.0]
    assert side.queues.asked == 0
    side.view.stretch = 8.0
    await side.waiting(busy, now=3000.0)
    assert side.view.ages[-1] == 240.0
    # Once it was sure that nothing waits it begins anew.
    side.view.silent.add("browser")
    assert await side.waiting(busy, now=3002.0) == {"browser": 0}
    side.view.silent.clear()
    await side.waiting(busy, now=3004.0)
    assert side.view.ages[-1] == 0.0

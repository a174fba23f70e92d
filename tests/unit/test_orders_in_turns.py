"""What operators' orders keep the scaler from, and what they have it do."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.scaler.limits import Orders
from swarm.scaler.model import Action, Cause, InstanceState, Outcome, Start, Stop, Undrain
from swarm.scaler.orders import Order, OrderKind, in_force
from swarm.scaler.ports import BrokerSide
from swarm.scaler.reconcile import Reconciler
from tests.builders import AT, make_settings
from tests.fakes import FakeQueues, FakeUnits, FakeView

PAUSE_IN = Order(OrderKind.PAUSE_IN, "anna", 0.0, 3600.0)
PAUSE_OUT = Order(OrderKind.PAUSE_OUT, "anna", 0.0, 3600.0)
DRAIN = Order(OrderKind.DRAIN, "anna", 0.0, host="h1")


def hold(count: int) -> Order:
    return Order(OrderKind.SET, "anna", 0.0, 3600.0, pool="browser", instances=count)


def pin(number: int, host: str = "h1") -> Order:
    return Order(OrderKind.PIN, "anna", 0.0, host=host, pool="browser", number=number)


class World:
    """Two hosts of four places, a pool of one to six instances."""

    def __init__(self, waiting: int = 0, **sections: Any) -> None:
        self.settings = make_settings(**sections)
        queues = FakeQueues({"browser": waiting, "analysis": 0})
        self.queues = queues
        self.hosts = {name: FakeUnits(name, clock=lambda: self.now) for name in self.settings.hosts}
        self.now = 1000.0
        side = BrokerSide(queues, FakeView(queues))
        self.reconciler = Reconciler(self.settings, {"primary": side}, self.hosts)

    def add(self, host: str, number: int, state: InstanceState, **fields: Any) -> None:
        fields = {"state_for_s": 600, **fields}
        if state is InstanceState.IDLE:
            fields = {"idle_for_s": 600, **fields}
        if state is InstanceState.BUSY:
            fields = {"active": 1, **fields}
        self.hosts[host].add("browser", number, state, **fields)

    def idle(self, host: str, *numbers: int, **fields: Any) -> None:
        for number in numbers:
            self.add(host, number, InstanceState.IDLE, **fields)

    def busy(self, host: str, *numbers: int) -> None:
        for number in numbers:
            self.add(host, number, InstanceState.BUSY)

    async def turn(self, *orders: Order) -> Outcome:
        self.now += 2
        came = in_force(orders, self.settings) if orders else Orders()
        return await self.reconciler.turn(self.now, at=AT, orders=came)

    async def turns(self, count: int, *orders: Order) -> Outcome:
        for _ in range(count - 1):
            await self.turn(*orders)
        return await self.turn(*orders)

    @property
    def asked(self) -> list[Action]:
        return [action for host in self.hosts.values() for action in host.asked]

    @property
    def stops(self) -> set[Stop]:
        return {action for action in self.asked if isinstance(action, Stop)}

    @property
    def starts(self) -> list[Start]:
        return [action for action in self.asked if isinstance(action, Start)]

    def running(self, host: str) -> set[int]:
        return {number for _, number in self.hosts[host].instances}


async def test_a_pause_of_scaling_in_stops_nothing_and_starts_what_is_needed() -> None:
    world = World()
    world.idle("h1", 1, 2, 3)
    outcome = await world.turns(100, PAUSE_IN)
    assert world.asked == []
    decision = outcome.decisions["browser"]
    assert decision.cause is Cause.STOPS_PAUSED
    assert "by anna until 1970-01-01 01:00 UTC" in decision.reason
    world.queues.lengths["browser"] = 50
    await world.turn(PAUSE_IN)
    assert len(world.starts) > 0
    world.queues.lengths["browser"] = 0
    await world.turns(100)
    assert len(world.stops) > 0, "it has ended"


async def test_a_pause_of_scaling_out_starts_nothing_not_even_the_minimum() -> None:
    world = World(waiting=50)
    outcome = await world.turns(20, PAUSE_OUT)
    assert world.asked == []
    assert outcome.decisions["browser"].cause is Cause.STARTS_PAUSED
    world.idle("h1", 1, 2, 3)
    world.queues.lengths["browser"] = 0
    await world.turns(100, PAUSE_OUT)
    assert len(world.stops) == 2
    assert world.starts == []


async def test_a_number_is_reached_and_kept_from_below_and_from_above() -> None:
    world = World()
    await world.turns(20, hold(4))
    assert len(world.starts) == 4
    for number in (1, 2):
        world.idle("h1", number)
        world.idle("h2", number)
    await world.turns(200, hold(4))
    assert world.stops == set(), "one is the minimum, but four are held"
    await world.turns(200, hold(2))
    assert len(world.stops) == 2


async def test_a_number_stops_nobody_who_has_a_task() -> None:
    world = World()
    world.busy("h1", 1, 2, 3)
    await world.turns(200, hold(1))
    assert world.asked == []


async def test_a_number_is_held_without_a_word_of_the_queue_but_then_stops_nothing() -> None:
    world = World()
    world.queues.away = "Flower is away"
    await world.turns(20, hold(3))
    assert len(world.starts) == 3
    for host in world.hosts:
        for number in world.running(host):
            world.idle(host, number)
    await world.turns(100, hold(1))
    assert world.stops == set()


async def test_a_drained_host_gets_nothing_and_others_take_its_place() -> None:
    world = World(waiting=50)
    await world.turns(20, DRAIN)
    assert {start.host for start in world.starts} == {"h2"}
    assert len(world.starts) == 4


async def test_a_drained_host_is_emptied_of_the_idle_however_briefly_they_are() -> None:
    world = World(waiting=0)
    world.idle("h1", 1, 2, idle_for_s=1)
    world.busy("h1", 3)
    await world.turn(DRAIN)
    assert world.stops == set(), "one reading proves nothing"
    await world.turns(4, DRAIN)
    assert world.stops == {Stop("h1", "browser", 1), Stop("h1", "browser", 2)}
    world.hosts["h1"].end_task("browser", 3)
    await world.turns(5, DRAIN)
    assert world.running("h1") == set()
    assert [start.host for start in world.starts] == ["h2"], "the minimum is kept, elsewhere"


async def test_a_drained_host_is_emptied_while_the_queue_is_unknown() -> None:
    world = World()
    world.queues.away = "Flower is away"
    world.idle("h1", 1)
    await world.turns(4, DRAIN)
    assert world.stops == {Stop("h1", "browser", 1)}


async def test_one_with_tasks_between_two_reports_stays_on_a_drained_host() -> None:
    world = World()
    for ended in range(20):
        world.idle("h1", 1, idle_for_s=0, tasks_ended=ended)
        await world.turn(DRAIN)
    assert world.stops == set()


async def test_a_drained_host_is_emptied_of_the_busy_whatever_waits_elsewhere() -> None:
    world = World(waiting=50, hosts={"h1": {"address": "local", "max_instances": 4}})
    world.busy("h1", 1)
    await world.turn(DRAIN)
    assert world.hosts["h1"].instances["browser", 1].state is InstanceState.DRAINING
    await world.turns(10, DRAIN)
    assert world.stops == set(), "it has a task"
    world.hosts["h1"].end_task("browser", 1)
    await world.turns(5, DRAIN)
    assert world.running("h1") == set()
    assert not any(isinstance(action, Undrain) for action in world.asked)


async def test_a_drained_host_that_is_away_is_left_alone() -> None:
    world = World()
    world.idle("h1", 1, 2)
    await world.turn(DRAIN)
    world.hosts["h1"].away = "no answer in 10 s"
    await world.turns(50, DRAIN)
    assert world.stops == set()
    world.hosts["h1"].away = None
    await world.turns(5, DRAIN)
    assert len(world.stops) == 2


async def test_what_is_drained_counts_against_the_maximum() -> None:
    world = World(waiting=50)
    world.busy("h1", 1, 2, 3, 4)
    outcome = await world.turns(20, DRAIN)
    assert len(world.starts) == 2
    assert outcome.decisions["browser"].limit == "max_instances 6"
    basis = outcome.decisions["browser"].basis
    assert basis is not None
    assert (basis.inputs.drained, basis.inputs.busy) == (4, 0)


async def test_an_undrained_host_is_used_again() -> None:
    world = World(waiting=0)
    world.idle("h1", 1)
    drained = (await world.turn(DRAIN)).decisions["browser"]
    assert (drained.running, drained.desired) == (0, 1)
    await world.turn(PAUSE_IN)
    assert (await world.turn(PAUSE_IN)).decisions["browser"].running == 2


async def test_where_every_host_is_drained_it_says_so() -> None:
    world = World(waiting=5, hosts={"h1": {"address": "local", "max_instances": 4}})
    outcome = await world.turn(DRAIN)
    assert world.asked == []
    assert outcome.notes[0].endswith("starts wait, drained: h1")


@pytest.mark.parametrize("orders", [(pin(2), hold(0)), (pin(2), DRAIN)])
async def test_a_pinned_instance_stays_whatever_is_ordered(orders: tuple[Order, ...]) -> None:
    world = World()
    world.idle("h1", 1, 2, 3)
    await world.turns(200, *orders)
    assert world.running("h1") == {2}
    await world.turns(200, *orders[1:])
    assert world.running("h1") == set()


async def test_a_pause_of_scaling_in_holds_on_a_drained_host_too() -> None:
    world = World()
    world.idle("h1", 1, 2)
    await world.turns(50, DRAIN, PAUSE_IN)
    assert world.stops == set()

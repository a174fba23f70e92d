"""The simulated world: nothing gets lost in it, and the same seed gives the same history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from random import Random

import pytest

from bench.simulation.clock import Clock
from bench.simulation.figures import Figures, percentile, reversals
from bench.simulation.model import Beat, simulate
from bench.simulation.models import models, run_models
from bench.simulation.ours import Ours, SimulatedBroker, SimulatedFlower, SimulatedUnits
from bench.simulation.scale_downs import scale_down
from bench.simulation.traces import TRACES, Arrival, Loss, Spell, Trace, anything
from bench.simulation.unit import TICK_S
from bench.simulation.world import COMMAND_S, EXIT_S, Fleet, Move, UnreachableError, World
from swarm.delivery.survey import Attention, Rhythm
from swarm.scaler.model import Draining, HostReport, Instance, InstanceState, Unknown
from swarm.scaler.ports import CommandError
from swarm.settings import ScalerSettings

#: Boots that take exactly 3 s.
FLEET = Fleet(hosts=2, places=2, boot_spread=0.0)
READY_S = 3.2


def make_world(*arrivals: Arrival, spells: Sequence[Spell] = (), fleet: Fleet = FLEET) -> World:
    return World(Trace("test", 1000.0, arrivals, tuple(spells)), fleet, 1)


def make_ready(*arrivals: Arrival, count: int = 1) -> World:
    """A world at 10 s, with so many instances on h01."""
    world = make_world(*arrivals)
    for number in range(1, count + 1):
        world.start("h01", number)
    world.clock.advance(10.0)
    return world


async def reported(world: World) -> Instance:
    report = await SimulatedUnits(world, "h01").report()
    assert isinstance(report, HostReport)
    return report.instances[0]


def test_the_clock_keeps_the_order_of_time_and_of_setting() -> None:
    clock, happened = Clock(), []
    for time, name in ((2.0, "c"), (1.0, "a"), (1.0, "b"), (3.0, "d")):
        clock.at(time, lambda name=name: happened.append((clock.now, name)))  # type: ignore[misc]
    clock.advance(2.0)
    assert happened == [(1.0, "a"), (1.0, "b"), (2.0, "c")]
    assert clock.now == 2.0


def test_a_task_waits_for_a_start_and_is_done_in_its_time() -> None:
    world = make_world(Arrival(1.0, 5.0))
    world.start("h01", 1)
    world.clock.advance(20.0)
    (task,) = world.tasks
    assert [task.begun_at, task.ended_at] == pytest.approx([READY_S, READY_S + 5])
    assert world.unit_seconds == 20.0


def test_the_instance_that_has_waited_longest_gets_the_next_task() -> None:
    world = make_ready(Arrival(11.0, 1.0), Arrival(13.0, 1.0), Arrival(15.0, 1.0), count=2)
    first, second = world.units.values()
    world.clock.advance(14.5)
    assert (first.run, second.run) == (1, 1)
    world.clock.advance(20.0)
    assert (first.run, second.run) == (2, 1)


def test_a_stop_that_meets_a_task_lets_it_end() -> None:
    world = make_ready(Arrival(11.0, 5.0))
    world.clock.advance(10.9)
    world.stop(world.units["h01", 1], patience_s=60.0)
    world.clock.advance(16.0 + EXIT_S)
    assert (world.met_a_task, world.kills, world.ended) == (1, 0, 1)
    assert world.units == {}


def test_one_that_drains_takes_nothing_until_it_is_taken_back() -> None:
    world = make_ready(Arrival(11.0, 5.0), Arrival(12.0, 5.0))
    unit = world.units["h01", 1]
    drain = world.drain(unit)
    assert (drain.is_idle, drain.sequence, drain.since) == (True, 3, 10.0)
    world.clock.advance(20.0)
    assert (world.waiting, world.drain(unit)) == (2, drain)
    world.undrain(unit)
    assert (world.waiting, world.drains, world.undrains, world.slipped_in) == (1, 1, 1, 0)
    drain = world.drain(unit)
    assert (drain.is_idle, drain.sequence, world.slipped_in) == (False, 5, 1)
    world.clock.advance(30.0)
    assert unit.drain is not None
    assert (unit.drain.is_idle, unit.drain.sequence, world.ended, world.waiting) == (True, 6, 1, 1)


def test_a_drain_that_nobody_renews_ends() -> None:
    world = make_ready(Arrival(11.0, 5.0))
    unit = world.units["h01", 1]
    world.drain(unit)
    world.clock.advance(40.0)
    world.drain(unit)
    world.clock.advance(99.0)
    assert world.waiting == 1
    world.clock.advance(110.0)
    assert (world.waiting, world.ended) == (0, 1)


async def test_a_task_may_slip_in_before_a_drain_takes_effect() -> None:
    world = make_ready(Arrival(10.1, 5.0))
    units = SimulatedUnits(world, "h01")
    await units.report()
    reading = await units.drain("browser", 1)
    assert (world.now, reading.is_idle, reading.at) == (10.0 + COMMAND_S, False, world.now)
    assert reading.witness is not None
    assert reading.witness.renderers == 1
    assert (await reported(world)).state is InstanceState.BUSY, "its word is a tick old"
    world.clock.advance(11.0)
    told = await reported(world)
    assert (told.state, told.active) == (InstanceState.DRAINING, 1)
    world.clock.advance(16.0)
    told = await reported(world)
    assert told.draining == Draining(is_idle=True, sequence=3, since=10.0 + COMMAND_S)
    with pytest.raises(CommandError):
        await units.drain("browser", 2)


def test_one_that_stops_takes_no_more_tasks() -> None:
    world = make_ready(Arrival(10.3, 5.0))
    world.stop(world.units["h01", 1], patience_s=60.0)
    world.clock.advance(100.0)
    assert (world.waiting, world.ended) == (1, 0)


def test_a_task_that_is_cut_is_first_in_the_queue_and_begins_anew() -> None:
    world = make_ready(Arrival(11.0, 50.0), Arrival(12.0, 1.0), Arrival(13.0, 1.0))
    world.clock.advance(20.0)
    world.stop(world.units["h01", 1], patience_s=30.0)
    world.clock.advance(51.0)
    assert (world.kills, world.waiting, world.units) == (1, 3, {})
    world.start("h01", 1)
    world.clock.advance(200.0)
    ready = 51.0 + READY_S
    assert [task.ended_at for task in world.tasks] == pytest.approx(
        [ready + 50, ready + 51, ready + 52]
    )
    assert world.tasks[0].begun_at == 11.0
    assert [task.cuts for task in world.tasks] == [1, 0, 0]


def test_an_instance_that_is_stopped_while_it_boots_never_works() -> None:
    world = make_world(Arrival(1.0, 1.0))
    world.start("h01", 1)
    world.clock.advance(2.0)
    world.stop(world.units["h01", 1], patience_s=0.0)
    world.clock.advance(100.0)
    assert (world.units, world.waiting) == ({}, 1)


def test_a_host_that_is_away_obeys_nobody_and_works_on() -> None:
    away = Spell(Loss.HOST, 10.5, 30.0, host=0)
    world = make_world(Arrival(11.0, 5.0), spells=[away])
    world.start("h01", 1)
    world.clock.advance(12.0)
    with pytest.raises(UnreachableError):
        world.stop(world.units["h01", 1], patience_s=0.0)
    with pytest.raises(UnreachableError):
        world.start("h01", 2)
    assert world.room() == {"h02": 2}
    world.clock.advance(31.0)
    assert world.ended == 1
    assert world.room() == {"h01": 1, "h02": 2}


async def test_what_an_instance_says_of_itself_is_a_tick_old() -> None:
    world = make_ready(Arrival(11.0, 5.0))
    idle = await reported(world)
    assert (idle.state, idle.idle_since, idle.waits) == (InstanceState.IDLE, READY_S, True)
    world.clock.advance(11.0 + TICK_S / 2)
    assert (await reported(world)).state is InstanceState.IDLE
    world.clock.advance(11.0 + TICK_S)
    busy = await reported(world)
    assert (busy.state, busy.active, busy.tasks_ended) == (InstanceState.BUSY, 1, 0)
    world.clock.advance(17.0)
    after = await reported(world)
    assert (after.state, after.idle_since, after.tasks_ended) == (InstanceState.IDLE, 16.0, 1)
    assert (after.service_time_s, after.boot_time_s, after.pid) == (5.0, 3.0, idle.pid)


async def test_what_is_lost_is_told_as_unknown() -> None:
    spells = [Spell(loss, 20.0, 30.0, host=0) for loss in Loss]
    world = make_world(spells=spells[:1] + spells[2:])
    world.start("h01", 1)
    world.clock.advance(25.0)
    assert isinstance((await SimulatedFlower(world).waiting(["browser"]))["browser"], Unknown)
    assert (await reported(world)).state is InstanceState.UNREPORTED
    away = make_world(spells=spells[1:2])
    away.clock.advance(25.0)
    units = SimulatedUnits(away, "h01")
    assert isinstance(await units.report(), Unknown)
    with pytest.raises(CommandError):
        await units.start("browser", 1)


async def test_the_broker_is_surveyed_in_the_rhythm_and_when_a_bell_rings() -> None:
    world = make_world(Arrival(5.0, 1.0), Arrival(6.0, 1.0))
    broker = SimulatedBroker(world, Rhythm())
    broker.attend(Attention(deserted=frozenset({"browser"})))
    assert await broker.waiting(["browser"], max_age_s=100.0) == {"browser": 0}
    assert broker.quiet() == {"browser"}
    world.clock.advance(5.0)
    assert broker.quiet() == frozenset()
    assert await broker.waiting(["browser"], max_age_s=100.0) == {"browser": 1}
    world.clock.advance(7.0)
    assert await broker.waiting(["browser"], max_age_s=100.0) == {"browser": 1}
    assert await broker.waiting(["browser"], max_age_s=0.0) == {"browser": 2}
    assert broker.piled() == {"browser": 7.0}


class Careless:
    """Keeps all places full, and kills one instance at random every second."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world, self._rng = world, rng

    def beats(self) -> Sequence[Beat]:
        return (Beat(1.0, self._act),)

    async def _act(self) -> None:
        for host, free in self._world.room().items():
            for _ in range(free):
                numbers = {number for name, number in self._world.units if name == host}
                self._world.start(host, min(set(range(1, 20)) - numbers))
        unit = self._rng.choice(list(self._world.units.values()))
        if not self._world.is_lost(Loss.HOST, unit.host):
            self._world.stop(unit, patience_s=self._rng.choice((0.0, 0.5, 5.0)))


@pytest.mark.parametrize("seed", range(5))
async def test_every_task_ends_once_however_often_it_is_killed(seed: int) -> None:
    arrivals = tuple(Arrival(2.0 * number, 4.0) for number in range(100))
    trace = Trace("careless", 2000.0, arrivals, (Spell(Loss.HOST, 20.0, 60.0, 1),))
    world = (await simulate(trace, Fleet(hosts=3, places=4), Careless, seed)).world
    assert world.kills > 0
    assert sum(task.cuts for task in world.tasks) == world.kills
    assert world.ended == len(world.tasks)
    for task in world.tasks:
        assert task.begun_at is not None
        assert task.ended_at is not None
        assert task.arrived_at <= task.begun_at <= task.ended_at - task.service_s + 1e-9
    # The last stops have yet to take effect.
    world.clock.advance(world.now + 10.0)
    assert world.starts - world.stops == sum(u.is_capacity for u in world.units.values())


@pytest.mark.parametrize("name", ["burst", "mixed"])
async def test_the_same_seed_gives_the_same_figures_and_another_gives_others(name: str) -> None:
    async def figures(seed: int) -> dict[str, object]:
        runs = await run_models(name, models(ScalerSettings()), seed)
        return {model: asdict(Figures.of(run)) for model, run in runs.items()}

    first = await figures(1)
    assert await figures(1) == first
    assert await figures(2) != first


@pytest.mark.parametrize("make", TRACES.values(), ids=TRACES.keys())
def test_a_trace_is_in_order_and_ends_in_time(make: Callable[[int], Trace]) -> None:
    trace = make(1)
    times = [arrival.at for arrival in trace.arrivals]
    assert trace == make(1)
    assert times == sorted(times)
    assert times[-1] < trace.horizon_s
    assert all(0 < arrival.service_s <= trace.task_time_limit_s for arrival in trace.arrivals)
    assert all(spell.begin < spell.end for spell in trace.spells)


def test_percentiles_are_nearest_ranks() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.95) == 4.0
    assert percentile([7.0], 0.5) == 7.0


def test_a_start_soon_after_a_stop_is_a_reversal() -> None:
    assert reversals([Move(0, 4), Move(50, -1), Move(350, 2)]) == 1
    assert reversals([Move(0, 4), Move(50, -1), Move(351, 2)]) == 0
    assert reversals([Move(0, 4), Move(10, -1), Move(20, -1), Move(30, 1), Move(40, 1)]) == 1
    assert reversals([Move(0, 4), Move(10, -1), Move(20, 1), Move(30, -1), Move(40, 1)]) == 2


async def test_a_task_that_nobody_begins_has_waited_to_the_end() -> None:
    class Nobody:
        def __init__(self, world: World, rng: Random) -> None: ...

        def beats(self) -> Sequence[Beat]:
            return ()

    run = await simulate(Trace("test", 100.0, (Arrival(10.0, 1.0),)), FLEET, Nobody, 1)
    figures = Figures.of(run)
    assert (figures.p50_wait_s, figures.unfinished, figures.worker_hours) == (90.0, 1, 0.0)


async def test_our_stops_are_counted_and_let_tasks_end() -> None:
    downs = await scale_down(300, seed=1)
    assert downs.scale_downs >= 300
    assert downs.interrupted == 0
    # The world does let tasks slip in: a check that cannot fail would be none.
    assert downs.slipped_in > 0
    assert downs.met_a_task == 0


async def test_ours_keeps_the_limits_of_hosts_and_stops_down_to_nothing() -> None:
    most: dict[str, int] = {}

    class Watched(Ours):
        def beats(self) -> Sequence[Beat]:
            return (*super().beats(), Beat(1.0, self.watch))

        async def watch(self) -> None:
            for host, free in self._world.room().items():
                most[host] = max(most.get(host, 0), self._world.fleet.places - free)

    trace = Trace("test", 1200.0, tuple(Arrival(30.0, 20.0) for _ in range(50)))
    run = await simulate(trace, FLEET, Watched, 1)
    assert most == {"h01": 2, "h02": 2}
    assert run.world.ended == 50
    assert run.world.units == {}


def test_random_histories_differ_by_seed() -> None:
    assert anything(1) == anything(1)
    assert anything(1) != anything(2)

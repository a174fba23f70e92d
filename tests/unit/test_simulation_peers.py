"""The models of others do what their sources say, by hand on small cases."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from bench.simulation.exact import Exact
from bench.simulation.keda import Keda, rank_of_age, recommend, stabilise
from bench.simulation.traces import Arrival, Loss, Spell, Trace
from bench.simulation.world import Fleet, World

FLEET = Fleet(hosts=2, places=10, boot_spread=0.0)


def make_world(*arrivals: Arrival, spells: Sequence[Spell] = ()) -> World:
    return World(Trace("test", 10_000.0, arrivals, tuple(spells)), FLEET, 1)


def at_once(count: int, service_s: float = 1000.0) -> list[Arrival]:
    return [Arrival(1.0, service_s) for _ in range(count)]


@pytest.mark.parametrize(
    ("length", "replicas", "expected"),
    [
        (120, 1, 24),
        (1, 1, 1),
        (0, 8, 0),
        (26, 4, 6),
        # 21 and 18 are within a tenth of 5 x 4, 23 and 15 are not.
        (21, 4, 4),
        (18, 4, 4),
        (23, 4, 5),
        (15, 4, 3),
    ],
)
def test_keda_wants_five_entries_for_each_replica(
    length: int, replicas: int, expected: int
) -> None:
    assert recommend(length, replicas) == expected


@pytest.mark.parametrize(
    ("replicas", "recommended", "expected"),
    [
        (1, [24], 5),
        (5, [24], 10),
        (10, [24], 20),
        (20, [24], 24),
        (24, [24, 1], 24),
        (24, [10, 1], 10),
        (24, [1], 1),
    ],
)
def test_the_hpa_goes_up_by_four_or_doubles_and_down_to_the_highest_of_its_window(
    replicas: int, recommended: list[int], expected: int
) -> None:
    assert stabilise(replicas, recommended) == expected


def test_ages_count_by_their_binary_logarithm() -> None:
    assert [rank_of_age(age) for age in (0.0, 0.9, 1, 2, 3.9, 4, 600, 1000)] == [
        *(0, 0, 0, 1, 1, 2, 9, 9)
    ]


async def test_keda_starts_one_when_it_polls_and_the_hpa_the_rest() -> None:
    world = make_world(*at_once(120))
    keda = Keda(world, Random(1))
    world.clock.advance(2.0)
    await keda.sync()
    assert world.starts == 0
    await keda.poll()
    assert world.starts == 1
    await keda.sync()
    assert world.starts == 5
    world.clock.advance(17.0)
    await keda.sync()
    assert world.starts == 10
    world.clock.advance(32.0)
    await keda.sync()
    assert world.starts == 20


async def test_keda_goes_to_zero_300_s_after_the_list_was_last_not_empty() -> None:
    world = make_world(*at_once(1, service_s=400.0))
    keda = Keda(world, Random(1))
    world.clock.advance(2.0)
    await keda.poll()
    world.clock.advance(302.0)
    await keda.poll()
    assert world.stops == 0
    world.clock.advance(332.0)
    await keda.poll()
    assert world.stops == 1
    # It is busy, and will be for more than the grace period.
    world.clock.advance(362.0)
    assert world.kills == 0
    world.clock.advance(363.0)
    assert (world.kills, world.waiting) == (1, 1)


async def test_keda_lets_a_pod_end_what_takes_less_than_its_grace_period() -> None:
    world = make_world(*at_once(1, service_s=350.0))
    keda = Keda(world, Random(1))
    world.clock.advance(2.0)
    await keda.poll()
    world.clock.advance(332.0)
    await keda.poll()
    world.clock.advance(400.0)
    assert (world.kills, world.met_a_task, world.ended) == (0, 1, 1)


async def test_keda_gives_up_pods_that_are_not_ready_first_and_then_the_newest() -> None:
    world = make_world(*at_once(8))
    for number in (1, 2):
        world.start("h01", number)
    world.clock.advance(300.0)
    world.start("h01", 3)
    world.clock.advance(310.0)
    world.start("h02", 1)
    keda = Keda(world, Random(1))
    order = [(pod.host, pod.number) for pod in keda._given_up_first(list(world.units.values()))]
    assert order[:2] == [("h02", 1), ("h01", 3)]
    assert set(order[2:]) == {("h01", 1), ("h01", 2)}


async def test_nobody_moves_while_the_queue_cannot_be_seen() -> None:
    for make in (Keda, Exact):
        world = make_world(*at_once(9), spells=[Spell(Loss.QUEUE, 0.0, 100.0)])
        model = make(world, Random(1))
        world.clock.advance(50.0)
        for beat in model.beats():
            await beat.act()
        assert world.starts == 0
        world.clock.advance(101.0)
        for beat in model.beats():
            await beat.act()
        assert world.starts > 0


async def test_the_exact_count_is_one_instance_for_each_task_at_once() -> None:
    world = make_world(*at_once(7, service_s=10.0), Arrival(8.0, 10.0))
    exact = Exact(world, Random(1))
    world.clock.advance(2.0)
    await exact.count()
    assert world.starts == 7
    world.clock.advance(9.0)
    await exact.count()
    assert world.starts == 8


async def test_the_exact_count_never_exceeds_the_fleet() -> None:
    world = make_world(*at_once(50))
    exact = Exact(world, Random(1))
    for now in (2.0, 4.0, 6.0):
        world.clock.advance(now)
        await exact.count()
    assert world.starts == 20


async def test_the_exact_count_kills_whom_it_hits() -> None:
    world = make_world(*at_once(4, service_s=10.0), *at_once(4, service_s=100.0))
    exact = Exact(world, Random(1))
    world.clock.advance(2.0)
    await exact.count()
    world.clock.advance(20.0)
    assert (world.working, world.ended) == (4, 4)
    await exact.count()
    world.clock.advance(21.0)
    assert world.stops == 4
    assert world.kills == world.met_a_task > 0
    # Whom it spared takes over what those lost whom it killed.
    assert world.working == 4 - world.waiting
    world.clock.advance(1000.0)
    assert sum(task.cuts for task in world.tasks) == world.kills

"""What breaks around the scaler, through whole turns: what it does not do then.

What breaks on the way to it, in HTTP, SSH and the lines of a host, has tests of its own; the list
of all is in docs/explanation/scaler-faults.md.
"""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest

from swarm.scaler import drains
from swarm.scaler.model import (
    Action,
    Drain,
    InstanceState,
    Renew,
    Start,
    Stop,
    Undrain,
)
from swarm.settings import Settings
from tests.builders import ANALYSIS, AT, BROWSER, make_settings
from tests.world import World

#: The most that Redis can hold in a list.
LONGEST = 2**32 - 1
TEN_YEARS = timedelta(days=3652)


def running(world: World, pool: str = "browser") -> int:
    """Instances that hold a place."""
    return sum(
        each.pool == pool and each.state is not InstanceState.FAILED
        for host in world.hosts.values()
        for each in host.instances.values()
    )


def get_to_work(world: World) -> None:
    """What was started is ready, and takes a task at once."""
    for host in world.hosts.values():
        for (pool, number), each in list(host.instances.items()):
            if each.state in {InstanceState.STARTING, InstanceState.IDLE}:
                host.add(pool, number, InstanceState.BUSY, active=1)


def of_kind(world: World, kind: type[Action]) -> list[Action]:
    return [action for action in world.asked if isinstance(action, kind)]


@pytest.mark.parametrize("jump", [1_000_000, LONGEST])
async def test_a_queue_that_jumps_to_a_million_starts_what_the_limits_allow(jump: int) -> None:
    world = World()
    for _ in range(5):
        await world.turn()
    world.queues.lengths["browser"] = jump
    for _ in range(20):
        outcome = await world.turn()
        assert running(world) <= 6
        starts = Counter(host for host, *_ in (r.action.key for r in outcome.results))
        assert max(starts.values(), default=0) <= 4, "on one host at once"
        get_to_work(world)
    assert running(world) == 6
    # And back: it may have been nonsense.
    world.queues.lengths["browser"] = 0
    for _ in range(200):
        await world.turn()
    assert of_kind(world, Stop) == of_kind(world, Drain) == [], "all of them have a task"


async def test_a_queue_that_jumps_up_and_down_in_every_turn_stops_nothing_at_work() -> None:
    world = World()
    for turn in range(200):
        world.queues.lengths["browser"] = 0 if turn % 2 else 1_000_000
        await world.turn()
        assert running(world) <= 6
        get_to_work(world)
    assert of_kind(world, Stop) == []
    assert len(of_kind(world, Start)) == 6, "each was started once"


@pytest.mark.parametrize("stale", [0, 7])
async def test_a_figure_that_never_changes_stops_nobody_at_work_and_starts_no_more_than_the_maximum(
    stale: int,
) -> None:
    """Flower tells the same for hours, whatever is in the queue."""
    world = World(browser=stale)
    for number in (1, 2, 3):
        world.hosts["h1"].add("browser", number, InstanceState.BUSY, active=1, state_for_s=600)
    for _ in range(1000):
        await world.turn()
        get_to_work(world)
        assert running(world) <= 6
    assert of_kind(world, Stop) == of_kind(world, Drain) == []


async def test_a_host_whose_disk_is_full_loses_no_instance_and_stops_none_elsewhere() -> None:
    """Nothing there can write its word of itself, and what is started there fails."""
    world = World()
    full, sound = world.hosts["h1"], world.hosts["h2"]
    for number in (1, 2):
        full.add("browser", number, InstanceState.UNREPORTED, state_for_s=600)
    for number in (1, 2):
        sound.add("browser", number, InstanceState.IDLE, idle_for_s=600, state_for_s=600)
    full.refuses = "Failed to start celery-browser@3.service: No space left on device"
    for _ in range(500):
        await world.turn()
    assert world.asked == []
    assert (await world.turn()).decisions["browser"].cause == "unreported"
    # Work is done where it can be, within a maximum that counts those that may be at work.
    world.queues.lengths["browser"] = 1000
    for _ in range(100):
        await world.turn()
        get_to_work(world)
        assert running(world) <= 6
    assert of_kind(world, Stop) == of_kind(world, Drain) == []
    assert running(world) == 6
    assert all(each.state is InstanceState.UNREPORTED for each in full.instances.values())


async def test_a_unit_that_fails_at_once_is_started_ever_more_rarely_and_others_stay() -> None:
    """On every host, as after a release that cannot start."""
    world = World(browser=1000)
    world.hosts["h2"].add("browser", 1, InstanceState.BUSY, active=1, state_for_s=600)
    starts = []
    for _ in range(6):
        before = len(of_kind(world, Start))
        for _ in range(600 // 2):
            await world.turn()
            for host in world.hosts.values():
                for (pool, number), each in list(host.instances.items()):
                    if each.state is InstanceState.STARTING:
                        host.add(pool, number, InstanceState.FAILED)
        starts.append(len(of_kind(world, Start)) - before)
    assert starts[-1] <= 4 < starts[0]
    assert of_kind(world, Stop) == of_kind(world, Drain) == []
    assert world.hosts["h2"].instances["browser", 1].state is InstanceState.BUSY


async def test_a_unit_that_is_stuck_in_deactivating_is_left_alone_and_keeps_its_place() -> None:
    world = World(browser=1000)
    for number in (1, 2):
        world.hosts["h1"].add("browser", number, InstanceState.STOPPING, state_for_s=600)
    for _ in range(1000):
        await world.turn()
        get_to_work(world)
        assert running(world) <= 6
    stuck = {("h1", "browser", 1), ("h1", "browser", 2)}
    assert not [action for action in world.asked if action.key in stuck], "no start, no second stop"
    assert running(world) == 6, "the others do the work"
    assert of_kind(world, Stop) == []


def crowded(**host: Any) -> Settings:
    """Two pools, and one place for both."""
    return make_settings(
        pools={
            "browser": {**BROWSER, "max_instances": 6},
            "analysis": {**ANALYSIS, "max_instances": 6},
        },
        hosts={"h1": {"address": "local", "max_instances": 1, **host}},
        scaler={"stabilisation_s": 0},
    )


async def test_of_two_pools_that_want_the_last_place_one_gets_it_and_keeps_it() -> None:
    world = World(crowded(), browser=50, analysis=50)
    outcome = await world.turn()
    assert len(world.asked) == 1
    [loser] = {"browser", "analysis"} - {world.asked[0].pool}
    assert f"{loser}: 6 of 6 starts wait, every host is full" in outcome.notes
    for _ in range(500):
        await world.turn()
        get_to_work(world)
        assert running(world, "browser") + running(world, "analysis") == 1
    assert len(world.asked) == 1, "it is neither stopped for the other nor asked for again"
    # Its work is done, and then the other has its turn.
    winner = world.asked[0]
    world.queues.lengths[winner.pool] = 0
    world.hosts["h1"].add(winner.pool, winner.number, InstanceState.IDLE, state_for_s=600)
    for _ in range(30):
        await world.turn()
        assert running(world, "browser") + running(world, "analysis") <= 1
    assert running(world, loser) == 1
    assert [type(action) for action in world.asked] == [Start, Drain, Drain, Stop, Start]


async def test_a_pool_with_a_minimum_takes_no_place_of_one_at_work() -> None:
    """Both have a right to it; who works stays."""
    settings = crowded()
    pool = settings.pools["analysis"].model_copy(update={"min_instances": 1})
    settings = settings.model_copy(update={"pools": {**settings.pools, "analysis": pool}})
    world = World(settings, browser=50, analysis=50)
    world.hosts["h1"].add("browser", 1, InstanceState.BUSY, active=1, state_for_s=600)
    for _ in range(500):
        await world.turn()
    assert world.asked == []


async def proved(world: World) -> None:
    """Until what drains would be stopped in the next turn."""
    for number in (1, 2):
        world.idle("h1", number)
    while not of_kind(world, Drain):
        await world.turn()
    # The second answer.
    for _ in range(2):
        await world.turn()
    assert len(world.hosts["h1"].asked) == 2
    assert world.stops == []


async def test_what_was_proved_in_time_is_stopped() -> None:
    """So that nothing is stopped below is because of the clock."""
    world = World()
    await proved(world)
    await world.turn()
    assert [each.key for each in world.stops] == [("h1", "browser", 2)]


@pytest.mark.parametrize("after_s", [drains.RENEW_S + 2.5, 3600.0, TEN_YEARS.total_seconds()])
async def test_a_proof_from_before_a_suspension_of_the_control_host_stops_nothing(
    after_s: float,
) -> None:
    """Nobody renewed the drain: the instance has been at work again for long."""
    world = World()
    await proved(world)
    host = world.hosts["h1"]
    # The last picture, from before, still shows it as drained and idle.
    host.shows = dict(host.instances)
    host.add("browser", 2, InstanceState.BUSY, active=1)
    outcome = await world.turn(after_s=after_s)
    assert world.stops == []
    assert [type(result.action) for result in outcome.results] == [Renew]
    for _ in range(20):
        await world.turn()
    assert world.stops == []


@pytest.mark.parametrize("back_s", [1.0, 3600.0])
async def test_a_step_back_of_the_scalers_own_clock_stops_nothing(back_s: float) -> None:
    """It cannot be set back; should it go back all the same, a proof of the future is none."""
    world = World()
    await proved(world)
    await world.turn(after_s=-back_s)
    assert world.stops == []


@pytest.mark.parametrize("step", [TEN_YEARS, -TEN_YEARS, timedelta(hours=1), timedelta(hours=-1)])
async def test_a_step_of_the_clock_on_the_wall_changes_nothing_without_schedules(
    step: timedelta,
) -> None:
    """NTP sets the control host's clock between two turns."""
    worlds = World(), World()
    for world, later in zip(worlds, (timedelta(0), step), strict=True):
        for number in (1, 2):
            world.idle("h1", number)
        world.hosts["h2"].add("browser", 1, InstanceState.BUSY, active=1, state_for_s=600)
        for turn in range(20):
            await world.turn(at=AT + later if turn >= 2 else AT)
    assert worlds[0].asked == worlds[1].asked
    assert worlds[1].hosts["h2"].instances["browser", 1].state is InstanceState.BUSY


@pytest.mark.parametrize("step", [TEN_YEARS, -TEN_YEARS])
async def test_a_step_of_the_clock_into_another_schedule_stops_nobody_at_work(
    step: timedelta,
) -> None:
    schedule = {"start": "0 7 * * *", "duration": "10h", "min_instances": 4}
    night = {**schedule, "start": "0 17 * * *", "duration": "14h", "max_instances": 0}
    night["min_instances"] = 0
    pool = {**BROWSER, "max_instances": 6, "schedules": [schedule, night]}
    world = World(make_settings(pools={"browser": pool}))
    for _ in range(5):
        await world.turn()
        get_to_work(world)
    assert running(world) == 4
    for turn in range(300):
        at = AT + step + timedelta(hours=12) if turn % 2 else AT
        await world.turn(at=at)
        assert running(world) == 4
    assert of_kind(world, Stop) == of_kind(world, Drain) == of_kind(world, Undrain) == []

"""One turn over fakes: nothing that fails ends it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from swarm.scaler import drains
from swarm.scaler.model import (
    Drain,
    HostReport,
    InstanceState,
    Renew,
    Start,
    Stop,
    Undrain,
    Unknown,
)
from swarm.witness import Witness
from tests.builders import ANALYSIS, BROWSER, make_settings
from tests.world import SLOW, World


async def test_a_turn_observes_decides_and_acts() -> None:
    world = World(browser=20)
    outcome = await world.turn()
    assert outcome.observation.waiting == {"browser": 20, "analysis": 0}
    assert outcome.decisions["browser"].desired == 4
    assert [result.action for result in outcome.results] == [
        Start("h1", "browser", 1),
        Start("h2", "browser", 1),
        Start("h1", "browser", 2),
        Start("h2", "browser", 2),
    ]
    assert all(result.error is None for result in outcome.results)
    assert len(world.hosts["h1"].instances) == 2


async def test_what_is_too_many_is_drained_and_stopped_after_two_readings() -> None:
    world = World()
    for number in (1, 2):
        world.idle("h1", number)
    actions = [world.actions(await world.turn()) for _ in range(6)]
    where = ("h1", "browser", 2)
    # The second reading is asked for when it must be two seconds later than the first.
    assert actions == [[], [Drain(*where)], [], [Renew(*where)], [Stop(*where)], []]
    for _ in range(50):
        await world.turn()
    assert [number for _, number in world.hosts["h1"].instances] == [1]


async def test_turns_that_come_when_they_are_due_stop_it_soon() -> None:
    world = World()
    for number in (1, 2):
        world.idle("h1", number)
    await world.turn()
    outcome = await world.turn()
    assert [type(action) for action in world.actions(outcome)] == [Drain]
    began = world.now
    while not world.stops:
        assert outcome.due_at is not None
        outcome = await world.turn(max(0.25, outcome.due_at - world.now))
    assert world.now - began < 3.0
    assert (await world.turn()).due_at is None


async def test_what_only_this_turn_knows_to_be_too_many_is_due_at_once() -> None:
    world = World(browser=1)
    world.idle("h1", 1)
    for _ in range(3):
        assert (await world.turn()).due_at is None, "one is kept"
    world.idle("h1", 2)
    world.queues.lengths["browser"] = 0
    due = []
    while not world.draining:
        due.append((await world.turn(0.25)).due_at == world.now)
    assert due[-1] is False, "it drains, and is due later"
    assert any(due)


async def drained(world: World) -> None:
    """Until an instance drains that is idle: one of two, with no work for either."""
    for number in (1, 2):
        world.idle("h1", number)
    while not world.draining:
        await world.turn()


async def test_work_that_comes_before_the_stop_takes_a_drained_instance_back() -> None:
    world = World()
    await drained(world)
    world.queues.lengths["browser"] = 8
    outcome = await world.turn()
    assert world.actions(outcome)[0] == Undrain("h1", "browser", 2)
    assert (world.draining, world.stops) == ([], [])
    assert world.hosts["h1"].instances["browser", 2].state is InstanceState.IDLE


async def test_a_task_that_slipped_in_is_done_before_the_stop() -> None:
    world = World()
    for number in (1, 2):
        world.idle("h1", number)
    await world.turn()
    host = world.hosts["h1"]
    # Taken after the host told that it is idle, before it was told to drain.
    host.shows = dict(host.instances)
    host.instances["browser", 2] = replace(host.instances["browser", 2], active=1)
    await world.turn()
    host.shows.clear()
    assert [each.number for each in world.draining] == [2]
    for _ in range(200):
        await world.turn()
    assert world.stops == []
    host.end_task("browser", 2)
    for _ in range(5):
        await world.turn()
    assert world.stops == [Stop("h1", "browser", 2)]


async def test_what_was_taken_back_is_not_stopped_on_what_it_proved_before() -> None:
    """Its status file may be of a moment before: it still drains there."""
    world = World(make_settings(scaler={**SLOW, "stabilisation_s": 0.0}))
    await drained(world)
    while not any(isinstance(action, Renew) for action in world.actions(await world.turn())):
        pass
    [was] = world.draining
    world.queues.lengths["browser"] = 8
    assert Undrain(*was.key) in world.actions(await world.turn(0.5))
    world.queues.lengths["browser"] = 0
    for _ in range(6):
        world.hosts["h1"].instances["browser", was.number] = was
        await world.turn(0.25)
    assert world.stops == []


async def test_a_drain_is_renewed_for_as_long_as_its_task_takes_and_no_oftener() -> None:
    world = World()
    world.idle("h1", 1)
    world.hosts["h1"].add("browser", 2, InstanceState.BUSY, active=1, state_for_s=600)
    await world.hosts["h1"].drain("browser", 2)
    world.hosts["h1"].asked.clear()
    for _ in range(100):
        await world.turn()
    assert len(world.hosts["h1"].asked) == 200 // 20


async def test_a_restart_adopts_what_drains_and_proves_it_anew() -> None:
    world = World()
    await drained(world)
    await world.turn()
    world.restart()
    where = ("h1", "browser", 2)
    actions = [world.actions(await world.turn()) for _ in range(4)]
    assert actions == [[Renew(*where)], [], [Renew(*where)], [Stop(*where)]]


async def test_a_host_that_goes_away_loses_its_proofs() -> None:
    world = World()
    await drained(world)
    await world.turn()
    await world.turn()
    world.hosts["h1"].away = "no answer"
    for _ in range(20):
        assert all(isinstance(each, Start) for each in world.actions(await world.turn()))
    world.hosts["h1"].away = None
    assert world.actions(await world.turn()) == [Renew("h1", "browser", 2)]
    assert world.stops == []


async def test_flower_is_asked_while_one_drains_and_its_silence_holds_the_stop() -> None:
    """All say that they wait: nothing is stopped on their word alone."""
    world = World()
    world.view.silent = {"analysis"}
    for number in (1, 2):
        world.idle("h1", number, waits=True)
    while not world.draining:
        await world.turn()
    world.queues.away = "Flower refused the password"
    outcomes = [await world.turn() for _ in range(30)]
    assert all(world.actions(each) == [] for each in outcomes)
    assert (outcomes[-1].decisions["browser"].cause, world.stops) == ("queue-unknown", [])
    world.queues.away = None
    while not world.stops:
        await world.turn()
    assert world.stops == [Stop("h1", "browser", 2)]


@pytest.mark.parametrize("witness", [None, Witness(5, 1, 1.0)])
async def test_a_witness_that_does_not_agree_holds_the_stop_and_is_told(
    witness: Witness | None,
) -> None:
    world = World()
    world.hosts["h1"].witness = witness
    await drained(world)
    limit_s = world.settings.pools["browser"].task_time_limit_s + drains.OVERDUE_MARGIN_S
    for _ in range(int(limit_s / 2)):
        outcome = await world.turn()
        assert outcome.overdue == {}
    outcome = await world.turn()
    assert world.stops == []
    assert outcome.overdue.keys() == {("h1", "browser", 2)}
    # It is looked at with each renewal, not in every turn.
    assert len(world.hosts["h1"].asked) <= 2 + limit_s / drains.RENEW_S


async def test_an_instance_that_cannot_be_drained_runs_on_and_another_goes() -> None:
    world = World()
    for number in (1, 2, 3):
        world.idle("h1", number)
    world.hosts["h1"].mute = {("browser", 2), ("browser", 3)}
    results = [result for _ in range(200) for result in (await world.turn()).results]
    refused = [result.action for result in results if result.error is not None]
    assert set(refused) == {Drain("h1", "browser", 3), Drain("h1", "browser", 2)}
    # They are asked again once in a while: what answers may have been started anew.
    assert 2 < len(refused) <= 2 * (400 / 60 + 1)
    assert world.stops == [Stop("h1", "browser", 1)]


async def test_what_was_just_told_to_drain_is_not_drained_again() -> None:
    """Its own word of it comes a little later."""
    world = World()
    for number in (1, 2):
        world.idle("h1", number)
    host = world.hosts["h1"]
    await world.turn()
    host.shows = dict(host.instances)
    await world.turn()
    assert [type(each) for each in host.asked] == [Drain]
    host.shows.clear()
    for _ in range(5):
        await world.turn()
    assert [number for _, number in host.instances] == [1]


async def test_a_task_between_two_turns_undoes_the_proof() -> None:
    world = World()
    for number in (1, 2):
        world.idle("h1", number)
    for ended in range(20):
        for number in (1, 2):
            world.idle("h1", number, tasks_ended=ended)
        await world.turn()
    assert world.stops == []


async def test_a_restart_of_the_scaler_adopts_what_runs() -> None:
    world = World(browser=20)
    await world.turn()
    running = dict(world.hosts["h1"].instances)
    world.queues.lengths["browser"] = 0
    world.restart()
    await world.turn()
    assert world.hosts["h1"].instances == running


@pytest.mark.parametrize("restarts", [1, 2, 5])
async def test_no_stop_before_two_turns_after_a_restart(restarts: int) -> None:
    world = World()
    for number in (1, 2, 3):
        world.idle("h1", number)
    for _ in range(restarts):
        world.restart()
        await world.turn()
    assert world.stops == []


async def test_a_host_that_is_away_leaves_the_others_at_work() -> None:
    world = World(browser=20)
    world.hosts["h1"].away = "no answer in 10 s"
    outcome = await world.turn()
    assert outcome.observation.hosts["h1"] == Unknown("no answer in 10 s")
    assert {result.action.host for result in outcome.results} == {"h2"}


async def test_flower_away_stops_nothing_however_long() -> None:
    world = World()
    for number in (1, 2, 3):
        world.idle("h1", number)
    world.queues.away = "Flower refused the password"
    outcome = await world.turn()
    for _ in range(300):
        outcome = await world.turn()
    assert world.stops == []
    assert outcome.decisions["browser"].reason == (
        "holding: queue length unknown (Flower refused the password)"
    )


async def test_a_pool_of_which_one_queue_is_unknown_holds() -> None:
    two_queues = make_settings(pools={"browser": {**BROWSER, "queues": ["browser", "slow"]}})
    world = World(two_queues, browser=50)
    outcome = await world.turn()
    assert outcome.observation.waiting == {"browser": Unknown("no answer about queue slow")}
    assert outcome.results == ()
    world.queues.lengths["slow"] = 7
    assert (await world.turn()).observation.waiting == {"browser": 57}


async def test_a_refused_action_is_told_with_its_reason() -> None:
    world = World()
    world.hosts["h1"].refuses = "Access denied"
    outcome = await world.turn()
    assert [(r.action, r.error) for r in outcome.results] == [
        (Start("h1", "browser", 1), "Access denied")
    ]


async def test_what_was_last_seen_on_a_lost_host_counts_for_a_while() -> None:
    world = World(browser=1000)
    for number in (1, 2, 3, 4):
        world.hosts["h1"].add("browser", number, InstanceState.BUSY, active=1, state_for_s=600)
    world.hosts["h1"].add("analysis", 1, InstanceState.FAILED)
    world.hosts["h2"].away = "not yet"
    await world.turn()
    world.hosts["h1"].away, world.hosts["h2"].away = "gone", None
    outcome = await world.turn()
    assert [instance.number for instance in outcome.observation.unseen] == [1, 2, 3, 4]
    for _ in range(5):
        await world.turn()
    assert len(world.hosts["h2"].instances) == 2
    world.now += world.settings.scaler.unseen_counts_s
    for _ in range(5):
        await world.turn()
    assert len(world.hosts["h2"].instances) == 4


async def test_what_was_just_started_on_a_lost_host_counts_too() -> None:
    world = World(browser=1000)
    await world.turn()
    assert len(world.hosts["h1"].instances) == 2
    world.hosts["h1"].away = "gone"
    outcome = await world.turn()
    assert [instance.number for instance in outcome.observation.unseen] == [1, 2]
    for _ in range(5):
        await world.turn()
    assert sum(len(host.instances) for host in world.hosts.values()) == 6


async def test_a_start_that_failed_may_have_worked() -> None:
    world = World()
    world.hosts["h1"].refuses = "no answer in 10 s"
    await world.turn()
    world.hosts["h1"].away = "gone"
    outcome = await world.turn()
    assert [instance.number for instance in outcome.observation.unseen] == [1]


async def test_a_host_that_answers_again_is_believed_at_once() -> None:
    world = World()
    world.idle("h1", 1)
    await world.turn()
    world.hosts["h1"].away = "gone"
    await world.turn()
    world.hosts["h1"].away = None
    world.hosts["h1"].instances.clear()
    outcome = await world.turn()
    assert outcome.observation.unseen == ()
    assert outcome.observation.hosts["h1"] == HostReport(())


async def test_an_idle_fleet_asks_nobody() -> None:
    world = World()
    world.idle("h1", 1, waits=True)
    world.view.silent = {"analysis"}
    for _ in range(100):
        await world.turn()
    outcome = await world.turn()
    assert outcome.observation.waiting == {"browser": 0, "analysis": 0}
    assert (world.queues.asked, world.view.ages) == (0, [])
    assert world.view.attention.deserted == {"analysis"}


async def test_a_queue_is_asked_for_as_soon_as_nobody_waits_on_it() -> None:
    world = World(browser=7)
    world.view.silent = {"analysis"}
    world.idle("h1", 1, waits=True)
    assert (await world.turn()).observation.waiting["browser"] == 0
    world.hosts["h1"].add("browser", 1, InstanceState.BUSY, active=1)
    assert (await world.turn()).observation.waiting["browser"] == 7
    assert world.queues.asked == 1


async def test_flower_away_stops_nothing_whatever_idle_instances_say() -> None:
    world = World()
    for number in (1, 2, 3):
        world.idle("h1", number, waits=True)
    world.queues.away = "Flower refused the password"
    for _ in range(300):
        await world.turn()
    assert world.stops == []
    outcome = await world.turn()
    assert outcome.decisions["browser"].cause == "queue-unknown"


async def test_a_pool_at_zero_is_started_by_what_the_broker_shows() -> None:
    world = World(analysis=3)
    world.idle("h1", 1, waits=True)
    outcome = await world.turn()
    assert [result.action for result in outcome.results] == [Start("h2", "analysis", 1)]
    assert world.queues.asked == 0


async def test_a_bell_that_rings_has_the_queue_asked_for_at_once() -> None:
    world = World()
    world.idle("h1", 1, waits=True)
    world.view.silent = {"analysis"}
    for _ in range(500):
        await world.turn()
    world.view.silent = set()
    world.queues.lengths["analysis"] = 1
    outcome = await world.turn()
    assert world.view.ages == [0.5]
    assert outcome.decisions["analysis"].desired == 1


async def test_without_bells_a_pool_at_zero_is_looked_at_within_the_set_time() -> None:
    world = World()
    world.idle("h1", 1, waits=True)
    for _ in range(500):
        await world.turn()
    first, *_, last = world.view.ages
    assert (first, last) == (0.0, world.settings.scaler.zero_check_s)


async def test_a_broker_that_is_away_makes_a_pool_at_zero_unknown() -> None:
    world = World()
    world.idle("h1", 1, waits=True)
    world.view.away = "connection refused"
    for _ in range(3):
        await world.turn()
    outcome = await world.turn()
    assert outcome.observation.waiting == {"browser": 0, "analysis": Unknown("connection refused")}
    assert outcome.results == ()


async def test_what_waits_although_an_instance_says_that_it_waits_too_is_looked_into() -> None:
    # As many are kept as run, so nobody is asked whether one may be stopped.
    world = World(
        make_settings(
            pools={
                "browser": {**BROWSER, "min_instances": 6, "max_instances": 6},
                "analysis": {**ANALYSIS, "max_instances": 2},
            }
        ),
        browser=9,
    )
    world.idle("h1", 1, waits=True, idle_for_s=5)
    world.view.silent = {"analysis"}
    await world.turn()
    world.view.piles = {"browser": 1001.0}
    outcome = await world.turn()
    assert outcome.observation.waiting["browser"] == 9
    # Taken at last: nobody asks any more until a later survey sees a pile again.
    world.queues.lengths["browser"] = 0
    for _ in range(5):
        outcome = await world.turn()
        assert (outcome.observation.waiting["browser"], world.queues.asked) == (0, 2)
    world.view.piles = {"browser": 1301.0}
    await world.turn()
    assert world.queues.asked == 3


async def test_a_host_that_is_cut_off_from_the_broker_keeps_no_task_waiting() -> None:
    """Its idle instance looks like room for what waits."""
    world = World(browser=1)
    world.idle("h1", 1, connected=False)
    for _ in range(15):
        outcome = await world.turn()
        assert outcome.results == ()
    await world.turn()
    assert len(world.hosts["h2"].instances) == 1
    assert [number for _, number in world.hosts["h1"].instances] == [1]
    for _ in range(100):
        await world.turn()
    assert world.stops == []

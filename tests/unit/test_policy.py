"""How many instances: a table, one row a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from swarm.scaler.limits import Override, effective
from swarm.scaler.model import (
    BrokerCondition,
    Decision,
    Instance,
    Observation,
    PoolMemory,
    Unknown,
)
from swarm.scaler.policy import confirmed_down, decide, reckon, times_s
from swarm.settings import PoolSettings, ScalerSettings
from tests.builders import (
    AT,
    make_inputs,
    make_instance,
    make_instances,
    make_observation,
    make_pool,
    make_scaler,
)

AWAY = Unknown("connection refused")
#: A memory that allows a step down: two fresh turns already, nothing needed lately.
CALM = PoolMemory(fresh_turns=5)


def turn(
    observation: Observation, memory: PoolMemory = CALM, *, pool: Any = None, scaler: Any = None
) -> tuple[Decision, PoolMemory]:
    settings = make_scaler(**scaler or {})
    # Placement asks for more than an age: here whoever has been idle long enough has proved it.
    stoppable = sum(
        instance.state == "idle"
        and instance.idle_for_s(observation.now) >= settings.idle_before_stop_s
        for instance in observation.instances("browser")
    )
    return decided(observation, memory, make_pool(**pool or {}), settings, proved=stoppable)


def decided(
    observation: Observation,
    memory: PoolMemory,
    pool: PoolSettings,
    scaler: ScalerSettings,
    *,
    proved: int,
    overrides: Sequence[Override] = (),
) -> tuple[Decision, PoolMemory]:
    inputs = make_inputs(observation, pool, scaler, proved=proved)
    return decide("browser", pool, scaler, inputs, effective(pool, AT, overrides), memory)


@pytest.mark.parametrize(
    ("waiting", "fleet", "pool", "need"),
    [
        # service 5 s, boot 3 s, target 15 s: k = 2.4, so a new instance takes 3.4 tasks in time.
        (0, {}, {}, 0),
        (1, {}, {}, 1),
        (3, {}, {}, 1),
        (4, {}, {}, 2),
        (34, {}, {}, 10),
        (0, {"busy": 2}, {}, 2),
        (4, {"busy": 2}, {}, 2),
        (5, {"busy": 2}, {}, 3),
        # Idle and starting instances are what the need is compared with, not part of it.
        (0, {"idle": 3}, {}, 0),
        (4, {"idle": 1, "starting": 1}, {}, 2),
        # A task of a minute: one each.
        (7, {}, {"expected_service_time_s": 60}, 6),
        (7, {}, {"expected_service_time_s": 600}, 7),
        # Starts slower than the target: what waits needs a place at once.
        (5, {"busy": 1}, {"expected_boot_time_s": 15}, 6),
        (10, {}, {"concurrency": 4, "expected_service_time_s": 600}, 3),
        # What will never start or cannot be seen is no capacity.
        (4, {"failed": 3, "stopping": 2, "unreported": 2}, {}, 2),
    ],
)
def test_needed(waiting: int, fleet: dict[str, int], pool: dict[str, Any], need: int) -> None:
    assert needed(make_pool(**pool), waiting, make_instances(**fleet)) == need


def needed(pool: PoolSettings, waiting: int, instances: Sequence[Instance]) -> int:
    inputs = make_inputs(make_observation(waiting, instances), pool, make_scaler())
    return reckon(pool, make_scaler(), inputs, effective(pool, AT), waiting).need


def test_open_places_of_a_busy_instance_are_used_first() -> None:
    half_busy = make_instance(1, "busy", capacity=4, active=2)
    slow = make_pool(expected_service_time_s=600)
    assert needed(slow, 2, (half_busy,)) == 1
    assert needed(slow, 3, (half_busy,)) == 2


def test_measured_times_replace_the_configured_ones() -> None:
    measured = (
        make_instance(1, service_time_s=1.0, boot_time_s=1.0),
        make_instance(2, service_time_s=3.0, boot_time_s=4.0),
        make_instance(3),
    )

    def times(*instances: Instance) -> tuple[float, float]:
        pool = make_pool()
        return times_s(pool, make_inputs(make_observation(0, instances), pool))

    assert times(*measured) == (2.0, 4.0)
    assert times() == (5.0, 3.0)
    assert times(make_instance(service_time_s=0.0))[0] > 0


@pytest.mark.parametrize(
    ("waiting", "fleet", "pool", "desired", "cause", "limit"),
    [
        (0, {}, {"min_instances": 1}, 1, "minimum", None),
        (0, {"failed": 2}, {"min_instances": 1}, 1, "minimum", None),
        (0, {}, {"spare": 2}, 2, "backlog", None),
        (0, {"busy": 1, "idle": 1}, {"spare": 2}, 3, "backlog", None),
        (5, {"idle": 1}, {}, 2, "backlog", None),
        (100, {}, {}, 4, "backlog", "at most 4 or double in 10 s"),
        (100, {"busy": 1}, {}, 5, "backlog", "at most 4 or double in 10 s"),
        (1000, {"busy": 5}, {"max_instances": 50}, 10, "backlog", "at most 4 or double in 10 s"),
        (100, {"busy": 4}, {}, 6, "backlog", "max_instances 6"),
        (100, {"busy": 6}, {}, 6, "at-limit", "max_instances 6"),
        # What stops, does not report or cannot be seen counts against the maximum.
        (100, {"busy": 4, "stopping": 1}, {}, 5, "backlog", "max_instances 6"),
        (100, {"busy": 4, "unreported": 1}, {}, 5, "backlog", "max_instances 6"),
        (100, {"busy": 4, "unreported": 3}, {}, 4, "at-limit", "max_instances 6"),
        (0, {"unreported": 1}, {"min_instances": 1}, 0, "enough", None),
    ],
)
def test_up(
    waiting: int,
    fleet: dict[str, int],
    pool: dict[str, Any],
    desired: int,
    cause: str,
    limit: str | None,
) -> None:
    decision, _ = turn(make_observation(waiting, make_instances(**fleet)), pool=pool)
    assert (decision.desired, decision.cause, decision.limit) == (desired, cause, limit)


def test_what_was_started_lately_counts_against_the_step() -> None:
    young = (
        make_instance(1, "busy"),
        *(make_instance(n, "starting", state_for_s=2.0) for n in (2, 3, 4)),
    )
    decision, _ = turn(make_observation(100, young), pool={"max_instances": 50})
    assert (decision.desired, decision.limit) == (5, "at most 4 or double in 10 s")


def test_unseen_instances_count_against_the_maximum() -> None:
    observation = make_observation(
        100, make_instances(busy=2), hosts={"h2": AWAY}, unseen=make_instances(busy=3)
    )
    decision, _ = turn(observation)
    assert (decision.desired, decision.limit) == (3, "max_instances 6")


def test_a_paused_instance_is_no_capacity_and_has_its_place() -> None:
    instances = (*make_instances(paused=1), make_instance(2, "idle"))
    made, _ = turn(make_observation(4, instances))
    assert (made.running, made.desired) == (1, 2), "another takes the work instead"
    made, _ = turn(make_observation(50, instances), pool={"max_instances": 3})
    assert (made.running, made.desired) == (1, 2), "with the paused one it is three"


def test_a_paused_instance_is_neither_spare_nor_surplus() -> None:
    paused = make_instance(1, "paused", active=1)
    made, _ = turn(make_observation(0, (paused,)), pool={"spare": 1})
    assert (made.running, made.desired) == (0, 1)
    made, _ = turn(make_observation(0, (paused,)))
    assert made.direction == "hold"


def test_unseen_instances_of_other_pools_do_not_count() -> None:
    other = replace(make_instance(1, "busy"), pool="analysis")
    observation = make_observation(100, make_instances(busy=4), hosts={"h2": AWAY}, unseen=[other])
    assert turn(observation)[0].desired == 6


@pytest.mark.parametrize("down_for_turns", [0, 1, 50])
def test_an_unknown_queue_stops_nothing_and_starts_nothing(down_for_turns: int) -> None:
    observation = make_observation(AWAY, make_instances(idle=5))
    memory = replace(CALM, fresh_turns=down_for_turns)
    decision, memory = turn(observation, memory)
    assert (decision.direction, decision.desired, decision.cause) == ("hold", 5, "queue-unknown")
    assert "connection refused" in decision.reason
    assert memory.fresh_turns == 0
    assert memory.needs == ()


def test_an_unknown_queue_still_lets_the_minimum_be_started() -> None:
    decision, _ = turn(make_observation(AWAY, ()), pool={"min_instances": 2})
    assert (decision.desired, decision.cause) == (2, "minimum")


def test_an_unknown_queue_and_a_host_that_is_away_freeze_the_pool() -> None:
    observation = make_observation(AWAY, (), hosts={"h2": AWAY})
    decision, _ = turn(observation, pool={"min_instances": 2})
    assert (decision.direction, decision.cause) == ("hold", "queue-unknown")


@pytest.mark.parametrize(
    ("fleet", "memory", "hosts", "desired", "cause"),
    [
        ({"idle": 4}, CALM, {}, 3, "surplus"),
        ({"idle": 8}, CALM, {}, 6, "surplus"),
        ({"idle": 1}, CALM, {}, 0, "surplus"),
        ({}, CALM, {}, 0, "enough"),
        ({"busy": 4}, CALM, {}, 4, "enough"),
        ({"starting": 2}, CALM, {}, 2, "not-idle"),
        ({"idle": 4}, CALM, {"h2": AWAY}, 4, "host-away"),
        ({"idle": 4, "unreported": 1}, CALM, {}, 4, "unreported"),
        ({"idle": 4}, PoolMemory(), {}, 4, "warming-up"),
        ({"idle": 4}, replace(CALM, last_step_down_at=971.0), {}, 4, "surplus"),
        ({"idle": 4}, replace(CALM, last_step_down_at=970.0), {}, 3, "surplus"),
        ({"idle": 4}, replace(CALM, needs=((880.0, 4),)), {}, 4, "stabilising"),
        ({"idle": 4}, replace(CALM, needs=((880.0, 3),)), {}, 3, "surplus"),
        ({"idle": 4}, replace(CALM, needs=((879.9, 4),)), {}, 3, "surplus"),
        ({"idle": 2, "busy": 2}, CALM, {}, 3, "surplus"),
    ],
)
def test_down(
    fleet: dict[str, int],
    memory: PoolMemory,
    hosts: dict[str, Any],
    desired: int,
    cause: str,
) -> None:
    decision, _ = turn(make_observation(0, make_instances(**fleet), hosts=hosts), memory)
    assert (decision.desired, decision.cause) == (desired, cause)


def test_an_instance_idle_too_shortly_is_kept() -> None:
    young: tuple[Instance, ...] = (
        make_instance(1, idle_for_s=119.9),
        make_instance(2, idle_for_s=119.9),
    )
    decision, _ = turn(make_observation(0, young))
    assert (decision.desired, decision.cause) == (2, "not-idle")


def test_spare_instances_are_kept_on_top_of_what_was_needed() -> None:
    memory = replace(CALM, needs=((900.0, 2),))
    decision, _ = turn(make_observation(0, make_instances(idle=8)), memory, pool={"spare": 5})
    assert decision.desired == 7


def test_overrides_take_the_place_of_what_is_configured() -> None:
    observation = make_observation(0, make_instances(idle=1))
    wants = Override("set by anna until 14:30", minimum=3, maximum=3)
    made, _ = decided(observation, CALM, make_pool(), make_scaler(), proved=1, overrides=[wants])
    assert (made.desired, made.cause) == (3, "minimum")
    crowd = make_observation(50, make_instances(busy=1))
    made, _ = decided(crowd, CALM, make_pool(), make_scaler(), proved=0, overrides=[wants])
    assert (made.desired, made.limit) == (3, "set by anna until 14:30 3")


def test_nothing_is_started_or_stopped_while_people_paused_it() -> None:
    def cause(observation: Observation, paused: Override) -> tuple[str, str]:
        made, memory = decided(
            observation,
            CALM,
            make_pool(min_instances=1),
            make_scaler(),
            proved=4,
            overrides=[paused],
        )
        assert memory.last_step_down_at is None
        assert "by anna" in made.reason
        return made.direction, made.cause

    no_starts = Override("paused by anna", no_starts=True)
    no_stops = Override("paused by anna", no_stops=True)
    assert cause(make_observation(9), no_starts) == ("hold", "starts-paused")
    assert cause(make_observation(0), no_starts) == ("hold", "starts-paused")
    assert cause(make_observation(0, make_instances(idle=4)), no_stops) == ("hold", "stops-paused")


def test_a_decision_can_be_made_anew_from_what_it_carries() -> None:
    observation = make_observation(7, make_instances(busy=2, idle=1, stopping=1))
    made, _ = turn(observation)
    assert made.basis is not None
    again, _ = decide(
        "browser", make_pool(), make_scaler(), made.basis.inputs, made.basis.limits, CALM
    )
    assert again == made
    assert made.basis.reckoning is not None
    assert made.basis.reckoning.need == made.wanted


def test_a_step_down_is_remembered_and_a_hold_is_not() -> None:
    _, memory = turn(make_observation(0, make_instances(idle=4)))
    assert memory.last_step_down_at == 1000.0
    _, memory = turn(make_observation(0, make_instances(busy=4)))
    assert memory.last_step_down_at is None


def test_needs_older_than_the_window_are_forgotten() -> None:
    _, memory = turn(
        make_observation(0, make_instances(busy=1)), replace(CALM, needs=((10.0, 9), (950.0, 3)))
    )
    assert memory.needs == ((950.0, 3), (1000.0, 1))


def test_after_a_restart_nothing_is_stopped_before_two_fresh_turns() -> None:
    memory = PoolMemory()
    directions = []
    for now in (1000.0, 1002.0, 1004.0):
        observation = make_observation(0, make_instances(idle=4), now=now)
        decision, memory = turn(observation, memory)
        directions.append(decision.direction)
    assert directions == ["hold", "down", "hold"]


def test_the_decision_says_what_the_work_asks_for_before_any_limit() -> None:
    decision, _ = turn(make_observation(1000, make_instances(busy=1)))
    assert decision.wanted > decision.desired
    assert decision.reason == "1000 waiting"


def test_no_step_down_is_announced_before_an_instance_has_proved_idle() -> None:
    observation = make_observation(0, make_instances(idle=4))
    decision, memory = decided(observation, CALM, make_pool(), make_scaler(), proved=0)
    assert (decision.direction, decision.cause) == ("hold", "not-idle")
    assert memory.last_step_down_at is None


def test_a_full_pool_names_its_maximum_as_the_limit() -> None:
    instances = tuple(make_instance(n, "starting", state_for_s=2.0) for n in range(1, 7))
    decision, _ = turn(make_observation(500, instances), pool={"max_instances": 6})
    assert (decision.desired, decision.limit) == (6, "max_instances 6")


OK, DOWN = BrokerCondition(), BrokerCondition(42.4, "Connection refused")


def lost(observation: Observation, *names: str) -> Observation:
    conditions = {name: DOWN if name in names else OK for name in ("primary", "fallback")}
    return replace(observation, brokers=conditions, confirmed_down=frozenset(names))


@pytest.mark.parametrize("waiting", [AWAY, 0, 100])
@pytest.mark.parametrize("fleet", [{}, {"idle": 4}, {"busy": 2, "idle": 2}, {"failed": 1}])
def test_a_pool_whose_broker_is_down_starts_nothing_and_stops_nothing_by_itself(
    waiting: int | Unknown, fleet: dict[str, int]
) -> None:
    observation = lost(make_observation(waiting, make_instances(**fleet)), "primary")
    decision, memory = turn(observation, pool={"min_instances": 2, "spare": 1})
    assert (decision.direction, decision.cause) == ("hold", "broker-down")
    assert decision.reason == "holding: primary is down for 42 s: Connection refused"
    assert memory.fresh_turns == 0


def test_the_other_broker_is_no_matter_to_a_pool() -> None:
    observation = lost(make_observation(5, make_instances(idle=1)), "fallback")
    assert turn(observation)[0] == turn(make_observation(5, make_instances(idle=1)))[0]


def test_when_the_broker_answers_again_minimum_and_backlog_are_started_at_once() -> None:
    _, memory = turn(lost(make_observation(AWAY), "primary"))
    decision, _ = turn(lost(make_observation(0)), memory, pool={"min_instances": 2})
    assert (decision.desired, decision.cause) == (2, "minimum")
    decision, _ = turn(lost(make_observation(8)), memory)
    assert (decision.desired, decision.cause) == (3, "backlog")


def test_when_the_broker_answers_again_nothing_is_stopped_before_two_fresh_turns() -> None:
    _, memory = turn(lost(make_observation(AWAY, make_instances(idle=4)), "primary"))
    decision, memory = turn(make_observation(0, make_instances(idle=4), now=1002.0), memory)
    assert decision.cause == "warming-up"
    decision, _ = turn(make_observation(0, make_instances(idle=4), now=1004.0), memory)
    assert decision.direction == "down"


def test_a_fallback_without_work_goes_down_to_its_minimum_though_the_primary_is_down() -> None:
    observation = lost(make_observation(0, make_instances(idle=1)), "primary")
    decision, _ = turn(observation, pool={"broker": "fallback"})
    assert (decision.desired, decision.cause) == (0, "surplus")


@pytest.mark.parametrize(
    ("down_for_s", "is_down"), [(None, False), (0.0, False), (29.9, False), (30.0, True)]
)
def test_a_broker_is_confirmed_down_after_a_while(
    *, down_for_s: float | None, is_down: bool
) -> None:
    conditions = {"primary": BrokerCondition(down_for_s, "gone"), "fallback": OK}
    assert confirmed_down(conditions, 30.0) == ({"primary"} if is_down else frozenset())
    swapped = {"primary": OK, "fallback": BrokerCondition(down_for_s, "gone")}
    assert confirmed_down(swapped, 30.0) == ({"fallback"} if is_down else frozenset())


def test_the_only_broker_gives_way_to_nobody() -> None:
    assert confirmed_down({"primary": BrokerCondition(1e6, "gone")}, 30.0) == frozenset()

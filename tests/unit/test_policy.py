"""How many instances: a table, one row a rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from swarm.scaler import placement
from swarm.scaler.limits import Override, effective
from swarm.scaler.model import (
    BrokerCondition,
    Decision,
    Inputs,
    Observation,
    PoolMemory,
    Unknown,
)
from swarm.scaler.policy import confirmed_down, decide
from swarm.settings import PoolSettings, ScalerSettings
from tests.builders import (
    AT,
    make_draining,
    make_inputs,
    make_instance,
    make_instances,
    make_observation,
    make_pool,
    make_scaler,
)

AWAY = Unknown("connection refused")
#: A memory that allows a step down: two fresh turns already, nothing needed or kept lately.
CALM = PoolMemory(fresh_turns=5, keep=0)


def turn(
    observation: Observation, memory: PoolMemory = CALM, *, pool: Any = None, scaler: Any = None
) -> tuple[Decision, PoolMemory]:
    settings = make_scaler(**scaler or {})
    drainable = placement.drainable("browser", observation)
    return decided(observation, memory, make_pool(**pool or {}), settings, drainable=drainable)


def decided(
    observation: Observation,
    memory: PoolMemory,
    pool: PoolSettings,
    scaler: ScalerSettings,
    *,
    drainable: int,
    overrides: Sequence[Override] = (),
) -> tuple[Decision, PoolMemory]:
    inputs = make_inputs(observation, pool, scaler, drainable=drainable)
    return decide("browser", pool, scaler, inputs, effective(pool, AT, overrides), memory)


@pytest.mark.parametrize(
    ("waiting", "fleet", "pool", "desired", "cause", "limit"),
    [
        (0, {}, {"min_instances": 1}, 1, "minimum", None),
        (0, {"failed": 2}, {"min_instances": 1}, 1, "minimum", None),
        (0, {}, {"spare": 2}, 2, "backlog", None),
        (0, {"busy": 1, "idle": 1}, {"spare": 2}, 3, "backlog", None),
        (5, {"idle": 1}, {}, 5, "backlog", None),
        (1000, {}, {"max_instances": 500}, 100, "backlog", "at most 100 starts in 10 s"),
        (1000, {"busy": 5}, {"max_instances": 500}, 105, "backlog", "at most 100 starts in 10 s"),
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
    decision, _ = turn(
        make_observation(100, young), pool={"max_instances": 50}, scaler={"scale_up_at_least": 6}
    )
    assert (decision.desired, decision.limit) == (7, "at most 6 starts in 10 s")


def test_while_starts_fail_everywhere_one_is_tried_at_a_time() -> None:
    def desired(*states: str) -> tuple[int, str | None]:
        instances = [make_instance(number, state) for number, state in enumerate(states, start=1)]
        inputs = replace(
            make_inputs(make_observation(50, instances)), breaker=True, suspects=("h1", "h2")
        )
        limits = effective(make_pool(), AT)
        made, _ = decide("browser", make_pool(), make_scaler(), inputs, limits, CALM)
        return made.desired, made.limit

    told = "starts fail on h1, h2: one at a time"
    assert desired() == (1, told)
    assert desired("busy") == (2, told)
    assert desired("busy", "starting") == (2, told)


def test_a_start_that_takes_too_long_is_no_capacity_and_has_its_place() -> None:
    late = make_instance(1, "starting", state_for_s=61)
    made, _ = turn(make_observation(9, (late,)))
    assert (made.running, made.desired, made.limit) == (0, 5, "max_instances 6")


def test_a_thousand_may_be_started_beside_a_thousand() -> None:
    observation = make_observation(1000, make_instances(busy=1000))
    decision, _ = turn(observation, pool={"max_instances": 5000})
    assert (decision.desired, decision.limit) == (2000, None)


def test_unseen_instances_count_against_the_maximum() -> None:
    observation = make_observation(
        100, make_instances(busy=2), hosts={"h2": AWAY}, unseen=make_instances(busy=3)
    )
    decision, _ = turn(observation)
    assert (decision.desired, decision.limit) == (3, "max_instances 6")


def test_a_paused_instance_is_no_capacity_and_has_its_place() -> None:
    instances = (*make_instances(paused=1), make_instance(2, "idle"))
    made, _ = turn(make_observation(2, instances))
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


BLIND = {"blind_instances": 3}


def test_an_unknown_queue_lets_a_pool_grow_one_by_one_while_none_is_idle() -> None:
    desired = []
    memory, running = CALM, 0
    for now in (1000.0, 1029.0, 1030.0, 1060.0, 1090.0):
        instances = [make_instance(n, "busy") for n in range(1, running + 1)]
        decision, memory = turn(make_observation(AWAY, instances, now=now), memory, pool=BLIND)
        desired.append(running := decision.desired)
        assert decision.cause == ("blind" if decision.direction == "up" else "queue-unknown")
    assert desired == [1, 1, 2, 3, 3]


@pytest.mark.parametrize("state", ["idle", "starting"])
def test_an_unknown_queue_starts_nothing_beside_what_has_no_work(state: str) -> None:
    observation = make_observation(AWAY, (make_instance(1, state), make_instance(2, "busy")))
    decision, _ = turn(observation, pool=BLIND)
    assert (decision.direction, decision.cause) == ("hold", "queue-unknown")


@pytest.mark.parametrize("hosts", [{"h2": AWAY}, {}])
def test_a_pool_of_which_nothing_is_known_is_frozen_for_ten_minutes(hosts: dict[str, Any]) -> None:
    instances = make_instances(busy=1, **({} if hosts else {"unreported": 1}))
    memory = CALM
    for now, desired in ((1000.0, 1), (1599.0, 1), (1600.0, 3 if hosts else 2)):
        observation = make_observation(AWAY, instances, now=now, hosts=hosts)
        decision, memory = turn(observation, memory, pool=BLIND)
        assert decision.desired == desired, "one that does not report may be at work"


def test_what_is_known_in_between_begins_the_ten_minutes_anew() -> None:
    unknown = make_observation(AWAY, make_instances(busy=1), hosts={"h2": AWAY})
    _, memory = turn(unknown, pool=BLIND)
    _, memory = turn(make_observation(0, make_instances(busy=1), now=1300.0), memory, pool=BLIND)
    decision, _ = turn(replace(unknown, now=1700.0), memory, pool=BLIND)
    assert decision.direction == "hold"


@pytest.mark.parametrize("minutes", [0, 60])
def test_nothing_unknown_ever_lowers_a_pool(minutes: int) -> None:
    observation = make_observation(AWAY, make_instances(idle=6), hosts={"h2": AWAY})
    memory = replace(CALM, blind_since=1000.0 - 60 * minutes)
    assert turn(observation, memory, pool=BLIND)[0].desired == 6


def test_an_unknown_queue_and_a_host_that_is_away_freeze_the_pool() -> None:
    observation = make_observation(AWAY, (), hosts={"h2": AWAY})
    decision, _ = turn(observation, pool={"min_instances": 2})
    assert (decision.direction, decision.cause) == ("hold", "queue-unknown")


@pytest.mark.parametrize(
    ("fleet", "memory", "hosts", "desired", "cause"),
    [
        ({"idle": 4}, CALM, {}, 0, "surplus"),
        ({"idle": 1}, CALM, {}, 0, "surplus"),
        ({}, CALM, {}, 0, "enough"),
        ({"busy": 4}, CALM, {}, 4, "enough"),
        ({"starting": 2}, CALM, {}, 2, "not-idle"),
        ({"idle": 4}, CALM, {"h2": AWAY}, 4, "host-away"),
        ({"idle": 4, "unreported": 1}, CALM, {}, 4, "unreported"),
        ({"idle": 4}, PoolMemory(keep=0), {}, 4, "warming-up"),
        ({"idle": 4}, replace(CALM, keep=3), {}, 3, "surplus"),
        ({"idle": 4}, replace(CALM, keep=4), {}, 4, "stabilising"),
        ({"idle": 6}, replace(CALM, needs=((900.0, 2),)), {}, 4, "surplus"),
        ({"idle": 2, "busy": 2}, CALM, {}, 2, "surplus"),
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


def test_what_drains_is_no_capacity_and_not_too_many() -> None:
    drained = [make_draining(n) for n in (2, 3)]
    decision, _ = turn(make_observation(0, [make_instance(1), *drained]), pool={"spare": 1})
    assert (decision.running, decision.desired, decision.cause) == (1, 1, "enough")
    decision, _ = turn(make_observation(1, drained))
    assert (decision.running, decision.desired) == (0, 1)


def test_a_need_may_take_back_all_that_drains_at_once() -> None:
    """They run already: neither the step nor the maximum keeps them from work."""
    drained = [make_draining(n) for n in range(1, 21)]
    decision, _ = turn(make_observation(500, drained), pool={"max_instances": 20})
    assert (decision.desired, decision.limit) == (20, "max_instances 20")


def test_spare_instances_are_kept_on_top_of_what_is_needed() -> None:
    decision, _ = turn(make_observation(0, make_instances(busy=2, idle=4)), pool={"spare": 3})
    assert decision.desired == 5


def test_what_is_too_many_since_this_turn_is_stopped_in_the_next() -> None:
    """That nothing waits is the instances' own word in a turn before which all were kept."""
    decision, memory = turn(make_observation(0, make_instances(idle=4)), replace(CALM, keep=4))
    assert (decision.cause, memory.keep) == ("stabilising", 0)
    decision, _ = turn(make_observation(0, make_instances(idle=4), now=1002.0), memory)
    assert decision.desired == 0


def test_more_than_the_maximum_run_until_they_are_idle() -> None:
    """The maximum was lowered meanwhile."""
    busy = make_observation(9, make_instances(busy=5))
    decision, memory = turn(busy, pool={"max_instances": 3})
    assert (decision.direction, decision.cause, memory.keep) == ("hold", "not-idle", 3)
    some_idle = make_observation(0, make_instances(busy=3, idle=2), now=1002.0)
    decision, _ = turn(some_idle, memory, pool={"max_instances": 3})
    assert decision.desired == 3


def test_overrides_take_the_place_of_what_is_configured() -> None:
    observation = make_observation(0, make_instances(idle=1))
    wants = Override("set by anna until 14:30", minimum=3, maximum=3)
    made, _ = decided(observation, CALM, make_pool(), make_scaler(), drainable=1, overrides=[wants])
    assert (made.desired, made.cause) == (3, "minimum")
    crowd = make_observation(50, make_instances(busy=1))
    made, _ = decided(crowd, CALM, make_pool(), make_scaler(), drainable=0, overrides=[wants])
    assert (made.desired, made.limit) == (3, "set by anna until 14:30 3")


def test_nothing_is_started_or_stopped_while_people_paused_it() -> None:
    def cause(observation: Observation, paused: Override) -> tuple[str, str]:
        made, _ = decided(
            observation,
            CALM,
            make_pool(min_instances=1),
            make_scaler(),
            drainable=4,
            overrides=[paused],
        )
        assert "by anna" in made.reason
        return made.direction, made.cause

    no_starts = Override("paused by anna", no_starts=True)
    no_stops = Override("paused by anna", no_stops=True)
    assert cause(make_observation(9), no_starts) == ("hold", "starts-paused")
    assert cause(make_observation(0), no_starts) == ("hold", "starts-paused")
    assert cause(make_observation(0, make_instances(idle=4)), no_stops) == ("hold", "stops-paused")
    # Taking back what drains is no start.
    assert cause(make_observation(9, [make_draining(1)]), no_starts) == ("up", "starts-paused")


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


def test_after_a_restart_nothing_is_stopped_before_two_fresh_turns() -> None:
    memory = PoolMemory()
    directions = []
    for now in (1000.0, 1002.0, 1004.0):
        observation = make_observation(0, make_instances(idle=4), now=now)
        decision, memory = turn(observation, memory)
        directions.append(decision.direction)
    assert directions == ["hold", "down", "down"]


def test_the_decision_says_what_the_work_asks_for_before_any_limit() -> None:
    decision, _ = turn(make_observation(1000, make_instances(busy=1)))
    assert (decision.wanted, decision.desired, decision.reason) == (1001, 6, "1000 waiting")


def test_no_step_down_is_announced_that_nobody_would_take() -> None:
    observation = make_observation(0, make_instances(idle=4))
    decision, _ = decided(observation, CALM, make_pool(), make_scaler(), drainable=0)
    assert (decision.direction, decision.cause) == ("hold", "not-idle")


def test_a_full_pool_names_its_maximum_as_the_limit() -> None:
    instances = tuple(make_instance(n, "starting", state_for_s=2.0) for n in range(1, 7))
    decision, _ = turn(make_observation(500, instances), pool={"max_instances": 6})
    assert (decision.desired, decision.limit) == (6, "max_instances 6")


@given(
    low=st.integers(0, 60),
    reserve=st.floats(0, 3),
    steps=st.lists(st.tuples(st.floats(0, 1), st.floats(0.5, 20)), min_size=1, max_size=60),
)
def test_a_need_that_stays_within_the_reserve_is_never_followed_up_and_down(
    low: int, reserve: float, steps: list[tuple[float, float]]
) -> None:
    """However it moves: what was once started for it is not stopped."""
    pool, scaler = make_pool(max_instances=500), make_scaler(reserve=reserve)
    limits, memory, now, running = effective(pool, AT), CALM, 1000.0, low
    for share, seconds in steps:
        need = low + int(share * reserve * sqrt(low))
        now += seconds
        busy = min(need, running)
        inputs = Inputs(now, need - busy, busy=busy, idle=running - busy, drainable=running - busy)
        decision, memory = decide("browser", pool, scaler, inputs, limits, memory)
        assert decision.desired >= running
        running = decision.desired


def test_what_a_decision_carries_survives_its_way_through_json() -> None:
    for waiting in (7, AWAY):
        observation = make_observation(waiting, make_instances(busy=2, idle=1), hosts={"h2": AWAY})
        decision, memory = turn(observation)
        for value in (decision, memory):
            adapter = TypeAdapter(type(value))
            assert adapter.validate_json(adapter.dump_json(value)) == value


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
    assert (decision.desired, decision.cause) == (6, "backlog")


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

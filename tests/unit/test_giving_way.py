"""Pools of a broker that is down give their places to those of one that answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.scaler.drains import Proofs
from swarm.scaler.limits import Override, effective
from swarm.scaler.model import (
    Basis,
    BrokerCondition,
    Cause,
    Decision,
    Direction,
    Drain,
    Draining,
    HostReport,
    Inputs,
    Instance,
    InstanceState,
    Observation,
    Renew,
    Start,
    Stop,
    Undrain,
    Unknown,
)
from swarm.scaler.placement import Plan, plan
from tests.builders import (
    AT,
    NOW,
    make_draining,
    make_instance,
    make_lost,
    make_observation,
    make_pool,
    make_proofs,
    make_two_brokers,
)

DOWN = {"primary": BrokerCondition(42.0, "Connection refused"), "fallback": BrokerCondition()}
FAILING = {"primary": BrokerCondition(8.0, "Connection refused"), "fallback": BrokerCondition()}


def wants(pool: str = "browser-fallback", desired: int = 1, running: int = 0) -> Decision:
    direction = Direction.HOLD if desired == running else Direction.UP
    return Decision(pool, direction, running, desired, desired, Cause.BACKLOG, "why")


def seen(
    instances: Iterable[Instance],
    *,
    brokers: Mapping[str, BrokerCondition] | None = None,
    down: Iterable[str] = ("primary",),
    hosts: Mapping[str, HostReport | Unknown] | None = None,
) -> Observation:
    """The primary is confirmed down unless told otherwise."""
    waiting = dict.fromkeys(("browser", "browser-fallback", "spare"), 0)
    observation = make_observation(waiting, instances, hosts=hosts)
    return replace(observation, brokers=brokers or DOWN, confirmed_down=frozenset(down))


def made(
    observation: Observation, *decisions: Decision, proofs: Proofs | None = None, **sections: Any
) -> Plan:
    by_pool = {each.pool: each for each in decisions or [wants()]}
    return plan(by_pool, make_two_brokers(**sections), observation, proofs or {})


def drained(result: Plan) -> list[int]:
    assert not any(isinstance(action, Stop) for action in result.actions)
    drains = [action for action in result.actions if isinstance(action, Drain)]
    assert all(action.pool == "browser" for action in drains)
    return [action.number for action in drains]


FULL = [make_lost(number) for number in (1, 2, 3, 4)]


def test_an_idle_instance_that_lost_its_broker_makes_room() -> None:
    result = made(seen(FULL))
    assert result.actions == (Drain("h1", "browser", 4),)
    assert result.notes == (
        "browser-fallback: 1 of 1 starts wait, every host is full",
        "browser gives way to browser-fallback: its broker is down",
    )


@pytest.mark.parametrize("desired", [1, 2, 3, 4, 6])
def test_no_more_give_way_than_are_needed(desired: int) -> None:
    assert len(drained(made(seen(FULL), wants(desired=desired)))) == min(desired, 4)


def test_nothing_gives_way_while_there_is_room() -> None:
    result = made(seen(FULL[:2]), wants(desired=2))
    assert [type(action) for action in result.actions] == [Start, Start]
    # The host starts two at once; the third has its place.
    result = made(seen(FULL[:1]), wants(desired=3), scaler={"host_starts_at_once": 2})
    assert [type(action) for action in result.actions] == [Start, Start]


def test_nobody_gives_way_who_is_pinned_or_whose_pool_is_not_to_be_stopped() -> None:
    pinned = replace(seen(FULL), pinned=frozenset(each.key for each in FULL[1:]))
    assert drained(made(pinned)) == [1]
    holds = Decision("browser", Direction.HOLD, 4, 4, 4, Cause.BROKER_DOWN, "why")
    limits = effective(make_pool(), AT, [Override("anna", no_stops=True)])
    paused = replace(holds, basis=Basis(Inputs(NOW, 0), limits))
    assert drained(made(seen(FULL), wants(), holds)) == [4]
    assert drained(made(seen(FULL), wants(), paused)) == []


def test_who_is_about_to_go_makes_room_too() -> None:
    leaving = make_instance(4, "stopping", connected=False)
    assert drained(made(seen([*FULL[:3], leaving]))) == []
    assert drained(made(seen([*FULL[:3], leaving]), wants(desired=2))) == [3]
    # It may take until its task ends.
    assert drained(made(seen([*FULL[:3], replace(leaving, active=1)]))) == [3]
    assert drained(made(seen([*FULL[:3], replace(leaving, reserved=1)]))) == [3]


def test_a_drain_that_is_planned_anyway_makes_room_too() -> None:
    idle = make_instance(1, pool="spare", connected=True)
    sections = make_two_brokers().model_dump()
    spare = {**sections["pools"]["browser-fallback"], "queues": ["spare"]}
    sections["pools"]["spare"] = {**spare, "metrics_port_base": 9500}
    down = Decision("spare", Direction.DOWN, 1, 0, 0, Cause.SURPLUS, "why")
    result = made(seen([*FULL[:3], idle]), wants(), down, **sections)
    assert result.actions == (Drain("h1", "spare", 1),)
    going = make_draining(1, pool="spare", connected=True)
    held = replace(down, direction=Direction.HOLD, desired=1)
    result = made(seen([*FULL[:3], going]), wants(), held, **sections)
    assert result.actions == (Renew("h1", "spare", 1),)


def test_without_want_nothing_gives_way() -> None:
    assert made(seen(FULL), wants(desired=0)) == Plan()
    held = replace(wants(), direction=Direction.HOLD)
    assert made(seen(FULL), held) == Plan()


@pytest.mark.parametrize(
    "change",
    [
        {"connected": True},
        {"connected": None},
        {"active": 1},
        {"reserved": 1},
        {"state": InstanceState.BUSY},
        {"state": InstanceState.PAUSED},
        {"state": InstanceState.STARTING},
        {"state": InstanceState.UNREPORTED},
        {"pool": "browser-fallback"},
        {"pool": "forgotten"},
    ],
    ids=str,
)
def test_who_works_or_still_has_a_broker_gives_no_way(change: dict[str, Any]) -> None:
    assert drained(made(seen(replace(each, **change) for each in FULL))) == []


@pytest.mark.parametrize(
    ("brokers", "down"),
    [(FAILING, ()), ({name: BrokerCondition() for name in DOWN}, ()), (DOWN, ())],
    ids=["not for long enough", "there", "not confirmed"],
)
def test_nothing_gives_way_unless_the_broker_is_confirmed_down(
    brokers: Mapping[str, BrokerCondition], down: tuple[str, ...]
) -> None:
    assert drained(made(seen(FULL, brokers=brokers, down=down))) == []


def test_nothing_gives_way_to_a_pool_whose_own_broker_fails() -> None:
    failing = {**DOWN, "fallback": BrokerCondition(4.0, "Connection refused")}
    assert drained(made(seen(FULL, brokers=failing))) == []
    assert drained(made(seen(FULL, brokers=failing, down=["primary", "fallback"]))) == []


def test_who_drains_for_it_already_comes_before_others_and_goes_when_it_has_proved() -> None:
    going = make_draining(2, connected=False)
    fleet = [FULL[0], going, *FULL[2:]]
    notes = made(seen(FULL)).notes
    result = made(seen(fleet))
    assert (result.actions, result.notes) == ((Renew(*going.key),), notes)
    assert made(seen(fleet), proofs=make_proofs(going)).actions == (Stop(*going.key),)
    result = made(seen(fleet), wants(desired=2), proofs=make_proofs(going))
    assert result.actions == (Stop(*going.key), Drain("h1", "browser", 4))


def test_a_drain_for_which_nobody_waits_any_more_is_left_to_end() -> None:
    going = make_draining(4, connected=False)
    result = made(seen([*FULL[:3], going]), wants(desired=0), proofs=make_proofs(going))
    assert result == Plan()


def test_one_that_reached_its_broker_again_is_not_stopped() -> None:
    going = make_draining(4, connected=True)
    result = made(seen([*FULL[:3], going]), proofs=make_proofs(going))
    assert result.actions == (Drain("h1", "browser", 3),)


def test_one_that_refused_to_drain_lets_another_give_way() -> None:
    settings, observation = make_two_brokers(), seen(FULL)
    result = plan({"browser-fallback": wants()}, settings, observation, {}, refused={FULL[3].key})
    assert drained(result) == [3]


def test_only_hosts_that_can_use_the_place_give_one() -> None:
    hosts = {
        "h1": {"address": "local", "max_instances": 4, "pools": ["browser"]},
        "h2": {"address": "10.0.0.2", "max_instances": 1},
    }
    far = make_lost(1, host="h2")
    observation = seen(FULL, hosts={"h2": HostReport((far,))})
    result = made(observation, wants(desired=3), hosts=hosts)
    assert result.actions == (Drain("h2", "browser", 1),)
    failed = make_instance(1, "failed", pool="browser-fallback", state_for_s=5.0)
    assert drained(made(seen([*FULL, failed]))) == []


def test_a_host_that_is_cut_off_from_the_other_broker_gives_no_place() -> None:
    """Its places are of no use to the pools that want one."""
    cut_off = make_instance(4, "paused", pool="browser-fallback", connected=False, cut_off=True)
    assert drained(made(seen([*FULL[:3], cut_off]))) == []


def test_a_host_that_is_away_keeps_the_others_from_nothing() -> None:
    hosts = {name: {"address": name, "max_instances": 4} for name in ("h1", "h2")}
    observation = seen(FULL, hosts={"h2": Unknown("away")})
    assert drained(made(observation, hosts=hosts)) == [4]


def test_what_the_fallback_holds_is_started_first() -> None:
    answers = {name: BrokerCondition() for name in DOWN}
    observation = seen([make_instance(1, "busy")], brokers=answers, down=())
    sections: dict[str, Any] = {"scaler": {"host_starts_at_once": 9}}
    result = made(observation, wants("browser", 4, 1), wants(desired=2), **sections)
    assert [action.pool for action in result.actions] == ["browser-fallback"] * 2 + ["browser"]
    assert result.notes == ("browser: 2 of 3 starts wait, every host is full",)


def test_the_fallback_gives_way_to_the_primary_as_well() -> None:
    brokers = {"primary": BrokerCondition(), "fallback": DOWN["primary"]}
    lost = [replace(each, pool="browser-fallback") for each in FULL]
    result = made(seen(lost, brokers=brokers, down=["fallback"]), wants("browser", 2))
    assert result.actions == (
        Drain("h1", "browser-fallback", 4),
        Drain("h1", "browser-fallback", 3),
    )


def drains_if_it_should(instance: Instance) -> Instance:
    if instance.state is not InstanceState.DRAINING:
        return instance
    is_idle = not (instance.active or instance.reserved)
    return replace(instance, draining=Draining(is_idle, sequence=3, since=NOW - 5))


instances = st.builds(
    make_instance,
    st.integers(1, 99),
    st.sampled_from([state.value for state in InstanceState]),
    pool=st.sampled_from(["browser", "browser-fallback", "forgotten"]),
    host=st.sampled_from(["h1", "h2"]),
    idle_for_s=st.floats(0, 300),
    active=st.integers(0, 1),
    reserved=st.integers(0, 1),
    connected=st.sampled_from([True, False, None]),
).map(drains_if_it_should)
conditions = st.builds(BrokerCondition, st.sampled_from([None, 8.0, 42.0]), st.just("gone"))


@given(
    fleet=st.lists(instances, max_size=12, unique_by=lambda i: i.key),
    proved=st.integers(0, 12),
    brokers=st.fixed_dictionaries({"primary": conditions, "fallback": conditions}),
    desired=st.tuples(st.integers(0, 8), st.integers(0, 8)),
    places=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_whoever_gives_way_may_and_must(
    *,
    fleet: list[Instance],
    proved: int,
    brokers: dict[str, BrokerCondition],
    desired: tuple[int, int],
    places: tuple[int, int],
) -> None:
    names = ("h1", "h2")
    settings = make_two_brokers(
        hosts={
            name: {"address": name, "max_instances": count}
            for name, count in zip(names, places, strict=True)
        }
    )
    down = frozenset(n for n, c in brokers.items() if c.down_for_s and c.down_for_s >= 30)
    reports = {name: HostReport(tuple(i for i in fleet if i.host == name)) for name in names}
    observation = Observation(NOW, {}, reports, brokers=brokers, confirmed_down=down)
    proofs = make_proofs(*fleet[:proved])
    # As the policy has it: what gives way asks for nothing.
    decisions = {
        name: wants(name, 0 if settings.pools[name].broker in down else count)
        for name, count in zip(settings.pools, desired, strict=True)
    }
    result = plan(decisions, settings, observation, proofs)

    current = {instance.key: instance for instance in fleet}
    victims = [action for action in result.actions if isinstance(action, Drain | Stop)]
    starts = [action for action in result.actions if isinstance(action, Start)]
    for action in victims:
        victim = current[action.key]
        begins = isinstance(action, Drain)
        assert victim.state is (InstanceState.IDLE if begins else InstanceState.DRAINING)
        assert victim.connected is False
        assert settings.pools[action.pool].broker in down
        if not begins:
            assert victim.active == victim.reserved == 0
            assert victim.key in proofs
    assert len({action.key for action in victims}) == len(victims)
    wanted = {
        name: decision.desired
        for name, decision in decisions.items()
        if brokers[settings.pools[name].broker].down_for_s is None
    }
    found = sum(
        action.pool in wanted for action in result.actions if isinstance(action, Start | Undrain)
    )
    # What is free, or is so soon, on hosts where every pool may start.
    room = 0
    for name, count in zip(names, places, strict=True):
        there = [i for i in current.values() if i.host == name]
        if any(i.state is InstanceState.FAILED for i in there):
            continue
        staying = [i for i in there if i.state != "stopping" or i.active or i.reserved]
        room += max(0, count - len(staying) - sum(start.host == name for start in starts))
    assert len(victims) <= max(0, sum(wanted.values()) - found - room)

"""Which instance on which host: room, limits, and who is drained, taken back and stopped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from swarm.scaler.drains import Proofs
from swarm.scaler.failing import breaker_is_open, failures, suspects
from swarm.scaler.model import (
    Basis,
    Cause,
    Decision,
    Direction,
    Drain,
    HostReport,
    Inputs,
    Instance,
    InstanceKey,
    Limit,
    Limits,
    Observation,
    Renew,
    Start,
    Stop,
    Undrain,
    Unknown,
)
from swarm.scaler.placement import Plan, drainable, plan
from swarm.settings import HostSettings
from tests.builders import (
    BROWSER,
    NOW,
    make_draining,
    make_host,
    make_instance,
    make_instances,
    make_observation,
    make_proofs,
    make_scaler,
    make_settings,
    make_two_brokers,
)

HOSTS = {"h1": make_host(), "h2": make_host()}
DRAINED = make_draining()
DRAIN, RENEW, UNDRAIN, STOP = (each(*DRAINED.key) for each in (Drain, Renew, Undrain, Stop))
AWAY = Unknown("away")


def decision(running: int, desired: int, pool: str = "browser") -> dict[str, Decision]:
    direction = Direction.UP if desired > running else Direction.DOWN
    if desired == running:
        direction = Direction.HOLD
    return {pool: Decision(pool, direction, running, desired, desired, Cause.BACKLOG, "why")}


def fleet(h1: Iterable[Instance] = (), h2: Iterable[Instance] | Unknown = ()) -> Observation:
    def on(host: str, instances: Iterable[Instance]) -> HostReport:
        return HostReport(tuple(replace(instance, host=host) for instance in instances))

    second = h2 if isinstance(h2, Unknown) else on("h2", h2)
    observation = make_observation(0)
    return replace(observation, hosts={"h1": on("h1", h1), "h2": second})


def made(
    decisions: Mapping[str, Decision],
    observation: Observation,
    *,
    hosts: Mapping[str, HostSettings] = HOSTS,
    proofs: Proofs | None = None,
    scaler: Any = None,
    leaving: Collection[str] = (),
    refused: Collection[InstanceKey] = (),
) -> Plan:
    settings = make_settings().model_copy(
        update={"hosts": hosts, "scaler": make_scaler(**scaler or {})}
    )
    return plan(decisions, settings, observation, proofs or {}, leaving=leaving, refused=refused)


def test_starts_are_spread_to_where_most_room_is() -> None:
    observation = fleet(make_instances(busy=2), ())
    assert made(decision(2, 5), observation).actions == (
        Start("h2", "browser", 1),
        Start("h2", "browser", 2),
        Start("h1", "browser", 3),
    )


def test_a_host_starts_a_few_at_a_time() -> None:
    result = made(decision(0, 6), fleet(), scaler={"host_starts_at_once": 2})
    assert len(result.actions) == 4
    assert result.notes == ("browser: 2 of 6 starts wait, each host starts a few at a time",)


def test_the_lowest_free_number_is_taken_and_a_failed_one_is_free_after_a_success() -> None:
    busy = make_instance(1, "busy", state_for_s=500)
    instances = (busy, make_instance(2, "failed"), make_instance(4, "stopping"))
    hosts = {"h1": make_host(), "h2": make_host(pools=["analysis"])}
    starts = made(decision(1, 3), fleet(instances), hosts=hosts).actions
    assert starts == (Start("h1", "browser", 2), Start("h1", "browser", 3))


def test_one_that_failed_keeps_its_number_as_long_as_others_are_free() -> None:
    """Else nobody could tell how often instances failed there."""
    instances = (make_instance(1, "busy"), make_instance(2, "failed", state_for_s=90))
    hosts = {"h1": make_host(max_instances=99), "h2": make_host(pools=["analysis"])}
    wants, scaler = decision(1, 99), {"host_starts_at_once": 99}
    starts = made(wants, fleet(instances), hosts=hosts, scaler=scaler).actions
    assert [start.number for start in starts] == [*range(3, 100), 2]


@pytest.mark.parametrize("state", ["starting", "idle", "busy", "paused", "stopping", "unreported"])
def test_whatever_may_run_holds_a_place(state: str) -> None:
    full = fleet(make_instances(**{state: 4}), make_instances(**{state: 4}))
    result = made(decision(0, 1), full)
    assert result == Plan(notes=("browser: 1 of 1 starts wait, every host is full",))


@pytest.mark.parametrize("state", ["busy", "draining"])
def test_other_pools_hold_places_too(state: str) -> None:
    others = tuple(replace(each, pool="analysis") for each in make_instances(**{state: 4}))
    assert made(decision(0, 1), fleet(others, others)).actions == ()


def test_places_are_shared_between_the_pools_of_one_turn() -> None:
    decisions = {**decision(0, 3), **decision(0, 3, "analysis")}
    hosts = {"h1": make_host(), "h2": make_host(pools=["none"])}
    result = made(decisions, fleet(), hosts=hosts, scaler={"host_starts_at_once": 9})
    assert [action.pool for action in result.actions] == ["browser"] * 3 + ["analysis"]
    assert result.notes == ("analysis: 2 of 3 starts wait, every host is full",)


def test_a_host_that_is_away_gets_nothing() -> None:
    assert {a.host for a in made(decision(0, 2), fleet((), Unknown("away"))).actions} == {"h1"}


def test_a_host_that_refused_a_start_lately_is_the_last_choice() -> None:
    settings = make_settings(scaler={"scale_up_at_least": 10})
    observation = make_observation(0, (), hosts={"h2": HostReport(())})
    no_starts = {("h1", "browser"), ("h2", "analysis")}
    starts = plan(decision(0, 6), settings, observation, {}, no_starts=no_starts).actions
    assert [start.host for start in starts] == ["h2"] * 4 + ["h1"] * 2


def test_a_host_runs_only_its_pools() -> None:
    hosts = {name: make_host(pools=["analysis"]) for name in ("h1", "h2")}
    result = made(decision(0, 1), fleet(), hosts=hosts)
    assert result.notes == ("browser: 1 of 1 starts wait, no host that answers runs this pool",)


def test_what_is_starting_already_counts_among_the_few() -> None:
    starting = replace(make_instance(1, "starting", state_for_s=20.0), pool="analysis")
    observation = fleet([starting], Unknown("away"))
    assert len(made(decision(1, 4), observation, scaler={"host_starts_at_once": 2}).actions) == 1


@pytest.mark.parametrize(
    ("failed_ago_s", "misconfigured", "paused"),
    [(59.0, False, True), (60.0, False, False), (599.0, True, True), (600.0, True, False)],
)
def test_a_host_rests_after_a_failure(
    failed_ago_s: float, *, misconfigured: bool, paused: bool
) -> None:
    failed = make_instance(1, "failed", state_for_s=failed_ago_s, misconfigured=misconfigured)
    result = made(decision(0, 1), fleet([failed], Unknown("away")))
    assert (result.actions == ()) is paused
    if paused:
        assert result.notes == ("browser: 1 of 1 starts wait, instances failed on h1",)


def test_a_host_is_left_alone_for_longer_the_more_rounds_of_starts_failed() -> None:
    def pause_s(*rounds_ago_s: float, together: int = 3) -> float:
        failed = [
            make_instance(10 * place + number, "failed", state_for_s=ago_s)
            for place, ago_s in enumerate(rounds_ago_s)
            for number in range(1, together + 1)
        ]
        found = failures(make_settings(), fleet(failed))
        return found["h1", "browser"].pause_until - (NOW - rounds_ago_s[-1])

    assert pause_s(0.0) == 60
    assert pause_s(90.0, 0.0) == 120
    assert pause_s(300.0, 90.0, 0.0) == 240
    assert pause_s(*(5000.0 - 500 * n for n in range(9))) == 1800
    assert pause_s(90.0, 0.0, together=1) == 60, "two in a row"
    assert pause_s(300.0, 90.0, 0.0, together=1) == 240


def test_a_success_ends_the_row_of_failures() -> None:
    failed = [make_instance(number, "failed", state_for_s=90) for number in (1, 2, 3)]
    assert failures(make_settings(), fleet([*failed, make_instance(4, state_for_s=80)])) == {}
    assert ("h1", "browser") in failures(
        make_settings(), fleet([*failed, make_instance(4, state_for_s=95)])
    )


@pytest.mark.parametrize(("age_s", "boot_s", "count"), [(60, 3, 0), (61, 3, 1), (61, 30, 0)])
def test_a_start_that_takes_too_long_has_failed(age_s: float, boot_s: float, count: int) -> None:
    late = make_instance(1, "starting", state_for_s=age_s)
    told = make_instance(2, "busy", boot_time_s=boot_s, state_for_s=70)
    found = failures(make_settings(), fleet([late, told]))
    assert sum(each.count for each in found.values()) == count


def test_a_suspect_host_is_tried_with_one_start() -> None:
    failed = [make_instance(number, "failed", state_for_s=90) for number in (1, 2, 3)]
    observation = fleet(failed, Unknown("away"))
    assert made(decision(0, 4), observation).actions == (Start("h1", "browser", 4),)
    trying = fleet([*failed, make_instance(4, "starting")], Unknown("away"))
    assert made(decision(0, 4), trying).actions == ()


def test_half_of_the_hosts_open_the_breaker() -> None:
    failed = [make_instance(number, "failed") for number in (1, 2, 3)]
    one, settings = fleet(failed), make_settings()
    found = failures(settings, one)
    assert suspects(found, "browser") == ["h1"]
    assert breaker_is_open(found, "browser", settings, one)
    assert not breaker_is_open(found, "analysis", settings, one)
    three = {**settings.hosts, "h3": make_host()}
    settings = settings.model_copy(update={"hosts": three})
    many = replace(one, hosts={**one.hosts, "h3": HostReport(())})
    assert not breaker_is_open(failures(settings, many), "browser", settings, many)


@pytest.mark.parametrize("away", ["drained", "without the pool"])
def test_what_failed_where_nothing_may_start_opens_no_breaker(away: str) -> None:
    failed = [make_instance(number, "failed") for number in (1, 2, 3)]
    one, settings = fleet(failed), make_settings()
    if away == "drained":
        one = replace(one, drained=frozenset({"h1"}))
    else:
        hosts = {**settings.hosts, "h1": make_host(pools=("analysis",))}
        settings = settings.model_copy(update={"hosts": hosts})
    found = failures(settings, one)
    assert suspects(found, "browser") == ["h1"]
    assert not breaker_is_open(found, "browser", settings, one)


class TestMemory:
    """A pool whose instances take 420 MB."""

    def on(self, h1: HostReport, h2: HostReport | Unknown = AWAY, count: int = 4) -> Plan:
        observation = replace(make_observation(0), hosts={"h1": h1, "h2": h2})
        return made(decision(0, count), observation)

    @pytest.mark.parametrize(("available_mb", "starts"), [(419, 0), (420, 1), (900, 2), (None, 4)])
    def test_a_host_starts_as_many_as_its_memory_bears(
        self, available_mb: int | None, starts: int
    ) -> None:
        result = self.on(HostReport((), memory_available_mb=available_mb))
        assert len(result.actions) == starts
        if starts < 4:
            assert result.notes == (
                f"browser: {4 - starts} of 4 starts wait, one more takes 420 MB, too much for h1",
            )

    def test_what_is_starting_has_not_taken_its_memory_yet(self) -> None:
        starting = (make_instance(1, "starting"), make_instance(2, "busy"))
        result = self.on(HostReport(starting, memory_available_mb=1000))
        assert len(result.actions) == 1

    def test_the_host_with_most_memory_for_each_place_comes_first(self) -> None:
        less, more = (HostReport((), memory_available_mb=mb) for mb in (2000, 3000))
        assert [start.host for start in self.on(less, more).actions] == ["h2", "h2", "h2", "h1"]

    def test_a_host_under_memory_pressure_starts_nothing(self) -> None:
        pressed = HostReport((), memory_available_mb=9000, memory_pressure=10.0)
        assert self.on(pressed).actions == ()
        fine = replace(pressed, memory_pressure=9.9)
        assert len(self.on(fine).actions) == 4

    def test_a_host_whose_processors_are_busy_is_the_last_choice(self) -> None:
        busy = HostReport((), memory_available_mb=9000, cpu_pressure=60.0)
        calm = HostReport((), memory_available_mb=900, cpu_pressure=59.0)
        assert [start.host for start in self.on(busy, calm).actions] == ["h2", "h2", "h1", "h1"]

    def test_a_pool_that_does_not_consider_it_goes_where_places_are(self) -> None:
        settings = make_settings(pools={"browser": {**BROWSER, "max_instances": 9, "memory_mb": 0}})
        reports = (HostReport((), memory_available_mb=mb, memory_pressure=50) for mb in (1, 9000))
        observation = replace(
            make_observation(0), hosts=dict(zip(("h1", "h2"), reports, strict=True))
        )
        starts = plan(decision(0, 4), settings, observation, {}).actions
        assert [start.host for start in starts] == ["h1", "h2", "h1", "h2"]


def test_a_failure_of_one_pool_does_not_pause_another() -> None:
    failed = make_instance(1, "failed", state_for_s=1.0)
    result = made(decision(0, 1, "analysis"), fleet([failed], Unknown("away")))
    assert result.actions == (Start("h1", "analysis", 1),)


def test_the_longest_idle_on_the_host_easiest_to_empty_is_drained_first() -> None:
    observation = fleet(
        [make_instance(1, "busy"), make_instance(2, idle_for_s=900.0)],
        [make_instance(1, idle_for_s=300.0), make_instance(2, idle_for_s=400.0)],
    )
    assert made(decision(4, 1), observation).actions == (
        Drain("h2", "browser", 2),
        Drain("h2", "browser", 1),
        Drain("h1", "browser", 2),
    )


def test_nothing_starts_on_a_host_that_is_cut_off_from_its_broker() -> None:
    """Most room is there, and what starts there would take no task."""
    cut_off = make_instance(1, "paused", connected=False, cut_off=True)
    result = made(decision(3, 6), fleet([cut_off], make_instances(busy=3)))
    assert result.actions == (Start("h2", "browser", 4),)
    assert result.notes == ("browser: 2 of 3 starts wait, every host is full",)
    result = made(decision(0, 1), fleet([cut_off], Unknown("away")))
    reason = "the primary broker is not reached from h1"
    assert result.notes == (f"browser: 1 of 1 starts wait, {reason}",)
    # It takes starts of whatever reaches its own.
    settings = make_two_brokers()
    observation = replace(fleet([cut_off]), hosts={"h1": HostReport((cut_off,))})
    result = plan(decision(0, 1, "browser-fallback"), settings, observation, {})
    assert result.actions == (Start("h1", "browser-fallback", 1),)


def test_no_more_are_drained_than_decided() -> None:
    assert len(made(decision(4, 3), fleet(make_instances(idle=4))).actions) == 1


@pytest.mark.parametrize(
    "state", ["starting", "busy", "paused", "stopping", "failed", "unreported"]
)
def test_only_idle_instances_are_drained_when_there_are_too_many(state: str) -> None:
    assert made(decision(4, 0), fleet(make_instances(**{state: 4}))).actions == ()


def test_nothing_is_stopped_that_was_not_drained() -> None:
    """However long it has been idle."""
    idle = make_instance(1, idle_for_s=1e6)
    for proofs in ({}, {idle.key: make_proofs(DRAINED)[DRAINED.key]}):
        assert made(decision(1, 0), fleet([idle]), proofs=proofs).actions == (DRAIN,)


def test_what_is_drained_is_stopped_when_it_has_proved_that() -> None:
    observation = fleet([DRAINED])
    for direction in (decision(0, 0), decision(3, 2)):
        assert made(direction, observation, proofs={}).actions == (RENEW,)
        assert made(direction, observation, proofs=make_proofs(DRAINED)).actions == (STOP,)
    first = make_proofs(DRAINED)[DRAINED.key]
    waits = replace(first, last=first.first, asked_at=NOW - 1.0)
    assert made(decision(0, 0), observation, proofs={DRAINED.key: waits}).actions == ()


@pytest.mark.parametrize(
    "observation",
    [
        replace(fleet([DRAINED]), waiting={"browser": Unknown("Flower is away")}),
        fleet([DRAINED], Unknown("away")),
        fleet([DRAINED, make_instance(2, "unreported")]),
        replace(fleet([DRAINED]), confirmed_down=frozenset({"primary"})),
    ],
    ids=["queue unknown", "a host away", "one unreported", "its broker down"],
)
@pytest.mark.parametrize("is_proved", [True, False])
def test_what_is_not_known_stops_nothing_renews_nothing_and_cancels_nothing(
    *, observation: Observation, is_proved: bool
) -> None:
    """The drain ends by itself, and the instance is there for what nobody can see."""
    proofs = make_proofs(DRAINED) if is_proved else {}
    assert made(decision(0, 0), observation, proofs=proofs) == Plan()


def test_a_need_takes_drained_instances_back_before_anything_is_started() -> None:
    drained = [make_draining(n, draining_for_s=n) for n in (1, 2, 3)]
    proofs = make_proofs(*drained)
    result = made(decision(0, 2), fleet(drained), proofs=proofs)
    # The third one is neither needed, nor stopped while more are.
    assert result.actions == (Undrain("h1", "browser", 1), Undrain("h1", "browser", 2))
    result = made(decision(0, 5), fleet(drained), proofs=proofs)
    assert result.actions == (
        *(Undrain("h1", "browser", n) for n in (1, 2, 3)),
        Start("h2", "browser", 1),
        Start("h2", "browser", 2),
    )
    result = made(decision(0, 1), fleet(drained), proofs={})
    assert result.actions == (
        Undrain("h1", "browser", 1),
        Renew("h1", "browser", 2),
        Renew("h1", "browser", 3),
    )


def test_one_that_has_a_task_drains_on() -> None:
    busy = make_draining(1, active=1, sequence=2)
    observation = fleet([busy])
    assert made(decision(0, 0), observation, proofs={}).actions == (RENEW,)
    read = make_proofs(busy)
    assert made(decision(0, 0), observation, proofs=read).actions == ()


def with_limits(direction: dict[str, Decision], **limits: Any) -> dict[str, Decision]:
    """The same decision, as it is made while people or schedules set other limits."""
    effective = Limits(Limit(1, "a"), Limit(6, "b"), Limit(0, "c"))
    basis = Basis(Inputs(NOW, 0), replace(effective, **limits))
    return {pool: replace(each, basis=basis) for pool, each in direction.items()}


def test_what_is_pinned_is_neither_drained_nor_stopped_but_taken_back() -> None:
    pinned = frozenset({DRAINED.key, ("h1", "browser", 2)})
    observation = replace(fleet([DRAINED, make_instance(2), make_instance(3)]), pinned=pinned)
    assert drainable("browser", observation) == 1
    for leaving in ((), ("h1",)):
        result = made(decision(2, 0), observation, proofs=make_proofs(DRAINED), leaving=leaving)
        assert result.actions == (UNDRAIN, Drain("h1", "browser", 3))


def test_while_stops_are_paused_nothing_drains() -> None:
    observation = fleet([DRAINED, make_instance(2)])
    decisions = with_limits(decision(1, 1), no_stops="paused by anna")
    for leaving in ((), ("h1",)):
        result = made(decisions, observation, proofs=make_proofs(DRAINED), leaving=leaving)
        assert result.actions == (UNDRAIN,)


def test_while_starts_are_paused_what_drains_is_taken_back_and_no_more() -> None:
    decisions = with_limits(decision(0, 1), no_starts="paused by anna")
    assert made(decisions, fleet([DRAINED])).actions == (UNDRAIN,)
    leaving = made(decisions, fleet([DRAINED]), leaving=("h1",))
    assert leaving.actions == (RENEW,)


def test_a_maximum_that_a_schedule_set_counts_what_drains_as_well() -> None:
    busy = make_draining(1, active=1, sequence=2)
    decisions = with_limits(decision(0, 3), maximum=Limit(3, "schedule"))
    result = made(decisions, fleet([busy]), proofs=make_proofs(busy), leaving=("h1",))
    assert len([each for each in result.actions if isinstance(each, Start)]) == 2


def test_who_refused_to_drain_is_passed_over() -> None:
    observation = fleet(make_instances(idle=3))
    refused = {("h1", "browser", 3), ("h1", "browser", 1)}
    assert drainable("browser", observation, refused) == 1
    assert made(decision(3, 0), observation, refused=refused).actions == (
        Drain("h1", "browser", 2),
    )


class TestLeavingHosts:
    """Hosts that were taken out of config.yaml: all that runs there is drained."""

    def plan(self, direction: dict[str, Decision], *h1: Instance, proofs: Any = None) -> Plan:
        hosts = {"h1": make_host(pools=[]), "h2": make_host()}
        result = made(direction, fleet(h1), hosts=hosts, leaving={"h1"}, proofs=proofs or {})
        assert not any(
            isinstance(action, Start) and action.host == "h1" for action in result.actions
        )
        return result

    def test_whatever_runs_is_drained_busy_or_not(self) -> None:
        states = ("idle", "busy", "paused", "starting", "stopping", "unreported", "failed")
        instances = [make_instance(n, state) for n, state in enumerate(states, start=1)]
        result = self.plan(decision(3, 3), *instances)
        assert result.actions == tuple(Drain("h1", "browser", n) for n in (1, 2, 3))

    def test_not_while_its_pool_needs_more_nor_while_that_is_unknown(self) -> None:
        result = self.plan(decision(1, 2), make_instance(1, "busy"))
        assert result.actions == (Start("h2", "browser", 1),)
        observation = replace(
            fleet([make_instance(1)]), waiting={"browser": Unknown("Flower is away")}
        )
        assert made(decision(1, 1), observation, leaving={"h1"}).actions == ()

    def test_what_drains_there_is_not_taken_back_but_stopped(self) -> None:
        result = self.plan(decision(0, 1), DRAINED, proofs=make_proofs(DRAINED))
        assert result.actions == (Start("h2", "browser", 1), STOP)

    def test_what_drains_there_counts_against_the_maximum(self) -> None:
        drained = [make_draining(n, active=1, sequence=2) for n in (1, 2, 3, 4)]
        result = self.plan(decision(0, 6), *drained, proofs=make_proofs(*drained))
        assert result.actions == (Start("h2", "browser", 1), Start("h2", "browser", 2))
        assert result.notes == (
            "browser: 4 of 6 starts wait, those that drain count against the maximum",
        )


def test_a_drain_that_is_too_old_is_told() -> None:
    old = make_draining(1, active=1, draining_for_s=1e4)
    result = made(decision(0, 0), fleet([old, make_draining(2)]), proofs=make_proofs(old))
    assert result.overdue == ((old.key, "it has 1 active and 0 reserved tasks"),)
    assert not any(isinstance(action, Stop) for action in result.actions)


def test_who_is_pinned_stays() -> None:
    observation = fleet(make_instances(idle=2))
    pinned = replace(observation, pinned=frozenset({("h1", "browser", 2)}))
    assert made(decision(2, 0), pinned).actions == (Drain("h1", "browser", 1),)


def test_holding_does_nothing() -> None:
    assert made(decision(1, 1), fleet(make_instances(idle=1))) == Plan()


def test_the_same_inputs_give_the_same_plan() -> None:
    observation = fleet(make_instances(busy=1, idle=2), make_instances(idle=3))
    assert len({made(decision(6, 2), observation) for _ in range(5)}) == 1

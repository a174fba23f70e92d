"""Whom to ask how much waits: a table, one row a rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarm.scaler.asking import attention, choose, max_age_s, tended, without
from swarm.scaler.model import HostReport, Instance, Unknown
from swarm.settings import PoolSettings
from tests.builders import ANALYSIS, make_draining, make_instance, make_pool

POOLS = {"browser": make_pool(), "analysis": PoolSettings.model_validate(ANALYSIS)}
AWAY = Unknown("no answer")


def waiting(number: int = 1, **fields: Any) -> Instance:
    return make_instance(number, **{"waits": True, "idle_for_s": 5.0, **fields})


BUSY = make_instance(2, "busy")
ANALYST = waiting(pool="analysis")


def chosen(*instances: Instance, pool: PoolSettings | None = None, **facts: Any) -> str:
    pools = {**POOLS, "browser": pool or POOLS["browser"]}
    return choose(pools, instances, **facts)["browser"].value


@pytest.mark.parametrize(
    ("instances", "source"),
    [
        # One that waits is enough, whatever the others do.
        ([waiting()], "nobody"),
        ([waiting(), BUSY], "nobody"),
        ([waiting(), make_instance(3, "unreported")], "nobody"),
        ([BUSY], "flower"),
        ([make_instance(1, "starting")], "flower"),
        ([make_instance(1, "unreported")], "flower"),
        # Idle by systemd's and its own word, but its broker is away, or its word is old.
        ([make_instance(1, "idle", idle_for_s=5.0)], "flower"),
        # What stops or has failed takes nothing any more.
        ([make_instance(1, "stopping")], "broker"),
        ([make_instance(1, "failed")], "broker"),
        ([], "broker"),
        ([ANALYST], "broker"),
        # CELERY_QUEUES: what counts is the queue on which an instance waits.
        ([waiting(queues=("browser-slow",))], "flower"),
        ([waiting(queues=("browser-slow",)), waiting(2)], "nobody"),
        ([waiting(queues=())], "flower"),
        ([replace(ANALYST, queues=("browser",))], "nobody"),
        ([replace(ANALYST, queues=("browser",)), BUSY], "nobody"),
        ([waiting(pool="forgotten")], "broker"),
    ],
)
def test_whom_to_ask(instances: list[Instance], source: str) -> None:
    assert chosen(*instances) == source


def test_every_queue_of_the_pool_must_be_waited_on() -> None:
    two = make_pool(queues=["browser", "slow"])
    assert chosen(waiting(), pool=two) == "nobody"
    assert chosen(waiting(queues=("browser",)), pool=two) == "flower"
    assert chosen(waiting(queues=("browser",)), waiting(2, queues=("slow",)), pool=two) == "nobody"


@pytest.mark.parametrize(
    ("instances", "facts", "source"),
    [
        ([], {"quiet": {"browser"}}, "nobody"),
        ([], {"quiet": {"analysis"}}, "broker"),
        ([make_instance(1, "failed")], {"quiet": {"browser"}}, "nobody"),
        # A bell is for those of whom nothing runs: it may well be rung and heard by others.
        ([BUSY], {"quiet": {"browser"}}, "flower"),
        ([waiting()], {"doubted": {"browser"}}, "flower"),
        ([waiting()], {"doubted": {"analysis"}}, "nobody"),
    ],
)
def test_silence_is_a_signal_and_doubt_undoes_one(
    instances: list[Instance], facts: dict[str, Any], source: str
) -> None:
    assert chosen(*instances, **facts) == source


@pytest.mark.parametrize(
    ("instances", "kept", "source"),
    [
        ([waiting(), waiting(2)], 1, "flower"),
        ([waiting(), BUSY], 1, "flower"),
        ([waiting(), waiting(2)], 2, "nobody"),
        # Another turn has to decide first.
        ([waiting(), waiting(2)], None, "nobody"),
        ([waiting(), make_instance(2, "stopping")], 1, "nobody"),
    ],
)
def test_somebody_is_asked_before_one_is_stopped(
    instances: list[Instance], kept: int | None, source: str
) -> None:
    assert chosen(*instances, kept={} if kept is None else {"browser": kept}) == source


@pytest.mark.parametrize(
    ("instances", "facts", "source"),
    [
        ([waiting()], {}, "nobody"),
        ([waiting()], {"doubted": {"browser"}}, "broker"),
        # Its bell is listened to although something runs, and silence is as good as a number.
        ([BUSY], {"quiet": {"browser"}}, "nobody"),
        ([BUSY], {"quiet": {"analysis"}}, "broker"),
        ([BUSY], {}, "broker"),
        ([waiting(), make_draining(2)], {}, "broker"),
        ([waiting(), waiting(2)], {"kept": {"browser": 1}}, "broker"),
        ([], {}, "broker"),
    ],
)
def test_flower_is_never_asked_about_a_metered_broker(
    instances: list[Instance], facts: dict[str, Any], source: str
) -> None:
    assert chosen(*instances, metered=True, **facts) == source


def test_the_bells_of_a_metered_broker_are_heard_while_all_is_busy() -> None:
    hosts = {"h1": HostReport((BUSY, ANALYST))}
    assert attention(POOLS, hosts, metered=True).deserted == {"browser"}
    assert attention(POOLS, hosts).deserted == frozenset()


def test_flower_is_asked_while_an_instance_drains() -> None:
    """Nothing is stopped on the word of the others, however long they have been idle."""
    assert chosen(waiting(idle_for_s=6000), waiting(2, idle_for_s=6000)) == "nobody"
    assert chosen(waiting(), make_draining(2)) == "flower"
    assert chosen(make_draining(1)) == "flower"
    assert chosen(waiting(), make_draining(2, pool="analysis")) == "nobody"


def test_tended_are_the_queues_that_instances_name() -> None:
    assert tended(POOLS, [waiting(), BUSY]) == {"browser"}
    assert tended(POOLS, [waiting(queues=("a", "b")), ANALYST]) == {"a", "b", "analysis"}
    assert tended(POOLS, [BUSY]) == frozenset()


@pytest.mark.parametrize(
    ("hosts", "close", "busy", "untended", "deserted"),
    [
        ([waiting(), ANALYST], False, False, set(), set()),
        ([waiting()], False, False, {"analysis"}, {"analysis"}),
        ([BUSY, ANALYST], False, True, {"browser"}, set()),
        ([], False, False, {"browser", "analysis"}, {"browser", "analysis"}),
        ([make_instance(1, "unreported"), ANALYST], True, True, {"browser"}, set()),
        ([make_instance(1, "stopping"), ANALYST], False, False, {"browser"}, {"browser"}),
    ],
)
def test_what_calls_for_attention(
    *, hosts: list[Instance], close: bool, busy: bool, untended: set[str], deserted: set[str]
) -> None:
    seen = attention(POOLS, {"h1": HostReport(tuple(hosts))})
    assert (seen.close, seen.busy) == (close, busy)
    assert (set(seen.untended), set(seen.deserted)) == (untended, deserted)
    assert attention(POOLS, {"h1": HostReport(tuple(hosts)), "h2": AWAY}).close


@pytest.mark.parametrize(
    ("calm_s", "age_s"), [(0, 0), (8, 2), (40, 10), (240, 60), (100_000, 60), (-5, 0)]
)
def test_a_pool_at_zero_is_looked_at_more_and_more_rarely(calm_s: float, age_s: float) -> None:
    assert max_age_s(1000.0 + calm_s, active_at=1000.0, at_most=60.0) == age_s


@pytest.mark.parametrize(
    ("instance", "close"),
    [
        (make_instance(1, "idle", connected=False), True),
        (make_instance(1, "busy", connected=False), True),
        (make_instance(1, "paused", connected=False), True),
        (make_draining(1, connected=False), True),
        # The scaler reaches the broker, as it has been told; this may last for days.
        (make_instance(1, "paused", connected=False, cut_off=True), False),
        (make_instance(1, "idle", connected=True), False),
        (make_instance(1, "idle"), False),
        # It has not been connected yet, or no longer is.
        (make_instance(1, "starting", connected=False), False),
        (make_instance(1, "stopping", connected=False), False),
    ],
)
def test_an_instance_that_lost_its_broker_has_it_looked_at(
    *, instance: Instance, close: bool
) -> None:
    assert attention(POOLS, {"h1": HostReport((instance,))}).close is close


def test_what_serves_another_broker_is_left_out_of_the_hosts_answers() -> None:
    mine, other = waiting(), replace(waiting(2), pool="browser-fallback")
    hosts = without({"h1": HostReport((mine, other), 512), "h2": AWAY}, {"browser-fallback"})
    assert hosts == {"h1": HostReport((mine,), 512), "h2": AWAY}

"""What proves an instance idle, when it is asked for that, and when its drain is too old."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from swarm.scaler import drains
from swarm.scaler.drains import (
    Proof,
    due_at,
    gather,
    is_due,
    is_proved,
    overdue,
    returners,
    victims,
)
from swarm.scaler.model import DrainReading, Instance, Unknown
from swarm.witness import Witness
from swarm.worker.drain import LEASE_S
from tests.builders import (
    NOW,
    make_draining,
    make_instance,
    make_observation,
    make_proofs,
    make_reading,
)

DRAINED = make_draining()
BUSY = make_draining(active=1, sequence=2)


def proof(*readings: DrainReading, asked_at: float = NOW - 2.0, tasks_ended: int = 0) -> Proof:
    """What these add up to, each asked for two seconds after the one before it."""
    first, *later = readings
    found = Proof(first, first, asked_at, tasks_ended)
    for reading in later:
        found = found.after(reading, asked_at)
    return found


def read(at: float, **fields: Any) -> DrainReading:
    return make_reading(DRAINED, at, **fields)


def seen(**fields: Any) -> Witness:
    return Witness(processes=4, renderers=0, cpu_s=8.0)._replace(**fields)


def test_two_readings_of_one_idleness_prove_it() -> None:
    assert is_proved(DRAINED, proof(read(50.0), read(52.0)), NOW)
    assert is_proved(DRAINED, make_proofs(DRAINED)[DRAINED.key], NOW)


@pytest.mark.parametrize(
    "readings",
    [
        [],
        [read(50.0)],
        [read(50.0), read(51.9)],
        [read(50.0, is_idle=False, sequence=2), read(52.0)],
        [read(50.0), read(52.0, sequence=5)],
        [read(50.0, sequence=1), read(52.0, sequence=1)],
        [read(50.0), read(52.0, pid=7)],
        [read(50.0, pid=7), read(52.0, pid=7)],
        [read(50.0, witness=None), read(52.0)],
        [read(50.0), read(52.0, witness=None)],
        [read(50.0, witness=None), read(52.0, witness=None)],
        [read(50.0, witness=seen(renderers=1)), read(52.0)],
        [read(50.0), read(52.0, witness=seen(renderers=1))],
        [read(50.0), read(52.0, witness=seen(cpu_s=9.2))],
    ],
    ids=[
        "none",
        "one",
        "too close",
        "a task at first",
        "consumed in between",
        "of an earlier drain",
        "another process",
        "of an earlier process",
        "processes unseen at first",
        "processes unseen at last",
        "processes never seen",
        "a page at first",
        "a page at last",
        "processes at work in between",
    ],
)
def test_anything_less_proves_nothing(readings: list[DrainReading]) -> None:
    assert not is_proved(DRAINED, proof(*readings) if readings else None, NOW)


@pytest.mark.parametrize(
    "told",
    [
        BUSY,
        replace(DRAINED, active=1),
        replace(DRAINED, reserved=1),
        replace(DRAINED, tasks_ended=1),
        replace(DRAINED, pid=7),
        make_draining(sequence=5),
        replace(DRAINED, draining=None),
    ],
    ids=["has a task", "active", "reserved", "ended one", "restarted", "drained anew", "consumes"],
)
def test_what_the_host_tells_now_undoes_it(told: Instance) -> None:
    assert not is_proved(told, proof(read(50.0), read(52.0)), NOW)


def test_a_proof_grows_old_before_the_drain_can_have_ended() -> None:
    last = make_proofs(DRAINED)[DRAINED.key]
    assert is_proved(DRAINED, last, last.asked_at + 20)
    assert not is_proved(DRAINED, last, last.asked_at + 20.1)


def test_a_page_that_is_gone_again_delays_the_proof_by_its_readings() -> None:
    page = read(52.0, witness=seen(renderers=1))
    found = proof(read(50.0), page, read(54.0))
    assert not is_proved(DRAINED, found, NOW)
    assert is_proved(DRAINED, found.after(read(56.0), NOW - 1), NOW)


def test_an_idle_browser_may_use_the_processor_a_little() -> None:
    assert is_proved(DRAINED, proof(read(50.0), read(90.0, witness=seen(cpu_s=27.9))), NOW)
    assert not is_proved(DRAINED, proof(read(50.0), read(90.0, witness=seen(cpu_s=28.1))), NOW)


class TestGathering:
    def test_answers_are_kept_while_the_instance_is_seen_draining(self) -> None:
        observation = make_observation(0, [DRAINED])
        key = DRAINED.key
        first = gather(observation, {}, {key: read(50.0)}, asked_at=NOW)
        assert first == {key: Proof(read(50.0), read(50.0), NOW, 0)}
        assert gather(observation, first, {}, asked_at=NOW + 2) == first
        both = gather(observation, first, {key: read(52.0)}, asked_at=NOW + 2)
        assert both == {key: Proof(read(50.0), read(52.0), NOW + 2, 0)}

    @pytest.mark.parametrize(
        "now_seen",
        [
            [make_instance(1)],
            [make_instance(1, "unreported")],
            [make_instance(1, "stopping")],
            [],
            Unknown("away"),
        ],
        ids=["consumes", "unreported", "stopping", "gone", "host away"],
    )
    def test_of_one_that_is_not_seen_draining_nothing_is_left(self, now_seen: Any) -> None:
        found = gather(
            make_observation(0, now_seen),
            make_proofs(DRAINED),
            {DRAINED.key: read(54.0)},
            asked_at=NOW,
        )
        assert found == {}

    def test_a_task_that_has_ended_since_begins_it_anew(self) -> None:
        ended = replace(DRAINED, tasks_ended=1)
        observation = make_observation(0, [ended])
        assert gather(observation, make_proofs(DRAINED), {}, asked_at=NOW) == {}
        anew = gather(observation, make_proofs(DRAINED), {ended.key: read(54.0)}, asked_at=NOW)
        assert anew == {ended.key: Proof(read(54.0), read(54.0), NOW, 1)}


@pytest.mark.parametrize(
    ("instance", "found", "due"),
    [
        # Adopted: another scaler, or a person, began it.
        (DRAINED, None, True),
        (BUSY, None, True),
        # The second reading.
        (DRAINED, proof(read(50.0), asked_at=NOW - 2.05), False),
        (DRAINED, proof(read(50.0), asked_at=NOW - 2.15), True),
        # It has proved all, and waits for its stop.
        (DRAINED, proof(read(50.0), read(52.0), asked_at=NOW - 19.9), False),
        (DRAINED, proof(read(50.0), read(52.0), asked_at=NOW - 20.0), True),
        # It has become idle since.
        (DRAINED, proof(make_reading(BUSY), asked_at=NOW - 0.5), True),
        (DRAINED, proof(read(50.0, sequence=1), asked_at=NOW - 0.5), True),
        # It has a task, and goes on draining.
        (BUSY, proof(make_reading(BUSY), asked_at=NOW - 19.9), False),
        (BUSY, proof(make_reading(BUSY), asked_at=NOW - 20.0), True),
        # What speaks against a stop is looked at with the next renewal.
        (DRAINED, proof(read(50.0, witness=None), asked_at=NOW - 19.9), False),
        (DRAINED, proof(read(50.0, witness=seen(renderers=1)), asked_at=NOW - 20.0), True),
    ],
)
def test_when_it_is_asked(*, instance: Instance, found: Proof | None, due: bool) -> None:
    assert is_due(instance, found, NOW) is due


def test_a_renewal_comes_well_before_the_drain_ends() -> None:
    assert 2 * drains.RENEW_S + 20 <= LEASE_S


def test_idle_ones_are_drained_the_longest_idle_first_where_fewest_others_work() -> None:
    instances = [
        make_instance(1, "busy"),
        make_instance(2, idle_for_s=900.0),
        replace(make_instance(1, idle_for_s=300.0), host="h2"),
        replace(make_instance(2, idle_for_s=400.0), host="h2"),
        make_instance(3, "starting"),
        make_instance(4, "paused"),
        make_draining(5),
    ]
    assert [each.key[::2] for each in victims(instances, NOW)] == [("h2", 2), ("h2", 1), ("h1", 2)]


def test_who_has_no_task_is_taken_back_first_and_the_last_one_drained_before_others() -> None:
    instances = [
        make_draining(1, active=1, draining_for_s=1.0),
        make_draining(2, draining_for_s=9.0),
        make_draining(3, draining_for_s=5.0),
        make_instance(4),
    ]
    assert [each.number for each in returners(instances)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("instance", "found", "why"),
    [
        (make_draining(active=1, draining_for_s=360.0), None, None),
        (
            make_draining(active=2, reserved=1, draining_for_s=360.1),
            None,
            "it has 2 active and 1 reserved tasks",
        ),
        (make_draining(draining_for_s=361.0), None, "it does not answer"),
        (
            make_draining(draining_for_s=361.0),
            proof(read(50.0, witness=None)),
            "its processes cannot be seen",
        ),
        (
            make_draining(draining_for_s=361.0),
            proof(read(50.0, witness=seen(renderers=2))),
            "2 pages are open in its browser",
        ),
        (
            make_draining(draining_for_s=361.0),
            proof(read(50.0), read(52.0, witness=seen(cpu_s=9.9))),
            "its processes are at work",
        ),
        (
            make_draining(draining_for_s=361.0),
            proof(read(50.0), read(52.0)),
            "it is not stopped",
        ),
        (make_instance(1), None, None),
    ],
)
def test_a_drain_that_outlives_every_task_is_told_with_what_holds_it(
    instance: Instance, found: Proof | None, why: str | None
) -> None:
    assert overdue(instance, found, limit_s=300.0, now=NOW) == why


def test_a_turn_is_due_when_a_second_reading_can_prove_it_and_at_once_when_one_has() -> None:
    first, second = read(50.0), read(52.1)
    [(key, _)] = proofs = [(DRAINED.key, proof(first))]
    began = due_at({}, {key: first}, now=NOW)
    assert began is not None
    assert drains.PROOF_GAP_S < began - NOW < drains.PROOF_GAP_S + 0.5
    waits = Proof(first, first, NOW - 1.0, 0)
    assert due_at({key: waits}, {}, now=NOW) == pytest.approx(began - 1.0)
    assert due_at(dict(proofs), {key: second}, now=NOW) == NOW
    assert due_at(dict(proofs), {key: read(51.0)}, now=NOW) == began, "too close: once more"


@pytest.mark.parametrize(
    "reading",
    [read(52.1, is_idle=False), read(52.1, witness=None), read(52.1, witness=seen(renderers=1))],
    ids=["has a task", "unseen", "a page is open"],
)
def test_no_turn_is_due_for_what_may_last(reading: DrainReading) -> None:
    assert due_at({DRAINED.key: proof(read(50.0))}, {DRAINED.key: reading}, now=NOW) is None


def test_no_turn_is_due_twice_for_a_moment_that_has_passed() -> None:
    old = Proof(read(50.0), read(50.0), NOW - 5.0, 0)
    assert due_at({DRAINED.key: old}, {}, now=NOW) is None
    assert due_at({DRAINED.key: proof(read(50.0), read(52.0))}, {}, now=NOW) is None

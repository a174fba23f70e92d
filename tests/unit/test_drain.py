"""A drain's states and their numbers, on a clock of the test's."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from celery.worker import state as celery_state
from hypothesis import given
from hypothesis import strategies as st

from swarm.delivery.holder import Holder
from swarm.delivery.intake import Intake
from swarm.worker.drain import Drain, handlers, holds_tasks


class Worker:
    """Takes as one does: only through its intake."""

    def __init__(self) -> None:
        self.now = 100.0
        self.intake = Intake()
        self.tasks = 0
        self.taken = 0
        self.drain = Drain(self.intake, lambda: self.tasks > 0, now=lambda: self.now)

    def begin_taking(self) -> bool:
        return self.intake.begin_taking()

    def end_taking(self) -> None:
        self.tasks += 1
        self.taken += 1
        self.intake.end_taking()

    def end_task(self) -> None:
        self.tasks = max(0, self.tasks - 1)

    def standing(self) -> tuple[str, int]:
        status = self.drain.look()
        return status.state, status.sequence


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_with_nothing_to_do_it_is_idle_at_once(worker: Worker) -> None:
    assert worker.standing() == ("consuming", 1)
    status = worker.drain.begin()
    assert (status.state, status.sequence, status.since) == ("idle", 3, 100.0)
    assert not worker.begin_taking()


def test_it_is_idle_only_when_its_tasks_have_ended(worker: Worker) -> None:
    worker.tasks = 2
    assert worker.drain.begin().state == "stopping"
    worker.end_task()
    assert worker.standing() == ("stopping", 2)
    worker.now += 30
    worker.end_task()
    status = worker.drain.look()
    assert (status.state, status.sequence, status.since) == ("idle", 3, 100.0)


def test_a_take_under_way_keeps_it_from_being_idle(worker: Worker) -> None:
    assert worker.begin_taking()
    assert worker.drain.begin().state == "stopping"
    worker.end_taking()
    assert worker.standing() == ("stopping", 2), "it came, and is a task like any other"
    worker.end_task()
    assert worker.standing() == ("idle", 3)


def test_each_verb_may_be_repeated(worker: Worker) -> None:
    assert worker.drain.cancel().sequence == 1
    first = worker.drain.begin()
    worker.now += 1
    assert worker.drain.begin() == first
    back = worker.drain.cancel()
    assert (back.state, back.sequence, back.since) == ("consuming", 4, 101.0)
    assert worker.drain.cancel() == back
    assert worker.begin_taking()


def test_cancelled_it_takes_at_once_whatever_it_still_has(worker: Worker) -> None:
    worker.tasks = 1
    worker.drain.begin()
    assert worker.drain.cancel().state == "consuming"
    assert worker.begin_taking()


def test_it_stays_closed_for_its_load(worker: Worker) -> None:
    worker.intake.close("load")
    worker.drain.begin()
    worker.drain.cancel()
    assert not worker.begin_taking()


def test_a_drain_that_nobody_renews_ends_by_itself(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    worker.drain.begin(for_s=60)
    worker.now += 59
    worker.drain.begin(for_s=60)
    worker.now += 59
    assert worker.standing() == ("idle", 3)
    worker.now += 1
    assert worker.standing() == ("consuming", 4)
    assert worker.begin_taking()
    assert "nobody renewed it" in caplog.text


def test_a_late_renewal_is_a_drain_of_its_own(worker: Worker) -> None:
    before = worker.drain.begin(for_s=60)
    worker.now += 61
    after = worker.drain.begin(for_s=60)
    assert (after.state, after.since) == ("idle", 161.0)
    assert after.sequence > before.sequence, "it may have taken a task in between"


def test_one_that_shuts_down_neither_goes_on_nor_back(worker: Worker) -> None:
    worker.drain.begin(for_s=60)
    worker.drain.shutting_down()
    worker.now += 100
    assert worker.standing() == ("idle", 3)
    with pytest.raises(ValueError, match="will not consume again"):
        worker.drain.cancel()


def test_begin_end_and_cancellation_are_one_line_each(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker.tasks = 1
    for _ in range(3):
        worker.drain.begin()
    worker.end_task()
    for _ in range(3):
        worker.drain.look()
    for _ in range(3):
        worker.drain.cancel()
    assert [record.message for record in caplog.records] == [
        "drain: takes no more tasks",
        "drained: holds no task",
        "drain cancelled: takes tasks again",
    ]


_STEPS = ("drain", "undrain", "look", "begin_taking", "end_taking", "end_task", "second", "minute")


@dataclass(frozen=True)
class Reading:
    """What was told at a moment, and what was so."""

    state: str
    sequence: int
    tasks: int
    is_taking: bool
    taken: int


def play(steps: list[str]) -> list[Reading]:
    """A worker's life, read after each step."""
    worker, is_taking = Worker(), False
    readings = []
    for step in steps:
        match step:
            case "drain":
                worker.drain.begin()
            case "undrain":
                worker.drain.cancel()
            case "begin_taking":
                is_taking = is_taking or worker.begin_taking()
            case "end_taking" if is_taking:
                worker.end_taking()
                is_taking = False
            case "end_task":
                worker.end_task()
            case "second" | "minute":
                worker.now += 1 if step == "second" else 60
        readings.append(Reading(*worker.standing(), worker.tasks, is_taking, worker.taken))
    return readings


@given(st.lists(st.sampled_from(_STEPS), max_size=60))
def test_idle_is_the_truth_and_under_one_number_all_the_time(steps: list[str]) -> None:
    readings = play(steps)
    for reading in readings:
        if reading.state == "idle":
            assert (reading.tasks, reading.is_taking) == (0, False)
    for before, after in itertools.pairwise(readings):
        assert after.sequence >= before.sequence
        assert (after.sequence == before.sequence) == (after.state == before.state)
        assert before.state != "idle" or after.state != "stopping"
    idle = {(r.sequence, r.taken) for r in readings if r.state == "idle"}
    assert len(idle) == len({sequence for sequence, _ in idle})


@pytest.fixture
def _no_requests() -> Iterator[None]:
    yield
    celery_state.active_requests.clear()
    celery_state.reserved_requests.clear()


class Request:
    """Stands for Celery's request: it is only counted."""


@pytest.mark.usefixtures("_no_requests")
def test_what_is_active_reserved_or_taken_is_held() -> None:
    holder = Holder()
    assert not holds_tasks(holder)
    for requests in (celery_state.active_requests, celery_state.reserved_requests):
        task = Request()
        requests.add(task)
        assert holds_tasks(holder)
        requests.discard(task)
    holder._since["tag"] = 1.0
    assert holds_tasks(holder), "of a message whose end is not sent Celery knows nothing more"
    holder.ended("tag")
    assert not holds_tasks(holder)


def test_the_verbs_of_the_socket_tell_state_number_and_process(worker: Worker) -> None:
    verbs = handlers(worker.drain)
    assert verbs["state"]({}) == {
        "pid": os.getpid(),
        "state": "consuming",
        "sequence": 1,
        "since": 100.0,
    }
    assert verbs["drain"]({"for_s": 5})["state"] == "idle"
    worker.now += 6
    assert verbs["state"]({})["state"] == "consuming"
    verbs["drain"]({})
    worker.now += 59
    assert verbs["state"]({})["state"] == "idle"
    assert verbs["undrain"]({})["state"] == "consuming"


@pytest.mark.parametrize("for_s", [0, -1, 3601, True, "60", None, [60], float("nan")])
def test_a_time_that_is_none_is_refused_and_changes_nothing(worker: Worker, for_s: Any) -> None:
    with pytest.raises(ValueError, match=r"for_s: got .*, expected seconds, at most 3600"):
        handlers(worker.drain)["drain"]({"for_s": for_s})
    assert worker.standing() == ("consuming", 1)

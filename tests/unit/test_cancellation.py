"""What `swarm cancel` concludes from queues, hosts and results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pytest

from swarm.cancellation import Cancellation, Found
from swarm.client import TaskResult

_T = TypeVar("_T")
PENDING = TaskResult("t", "pending")
DONE = TaskResult("t", "done")
CANCELLED = TaskResult("t", "failed", error="PermanentJobError: CANCELLED in cancel: by somebody")
WHERE = "celery-browser@3 on worker1"


class World:
    """Answers that change with each look; the last one stays."""

    def __init__(
        self,
        *,
        results: Sequence[TaskResult] = (PENDING,),
        waits: Sequence[bool] = (False,),
        hosts: Sequence[Sequence[Found]] = ((),),
    ) -> None:
        self._results, self._waits, self._hosts = list(results), list(waits), list(hosts)
        self.story: list[str] = []

    def result(self, task_id: str, *, wait_s: float = 0.0) -> TaskResult:
        self.story.append("result")
        return _next(self._results)

    def revoke(self, task_id: str) -> None:
        self.story.append("revoke")

    def waits(self, task_id: str) -> bool:
        self.story.append("queues")
        return _next(self._waits)

    def ask_hosts(self, task_id: str) -> Sequence[Found]:
        self.story.append("hosts")
        return _next(self._hosts)


def _next(answers: list[_T]) -> _T:
    return answers.pop(0) if len(answers) > 1 else answers[0]


def told(world: World) -> tuple[bool, str]:
    verdict = Cancellation(world, waits=world.waits, ask_hosts=world.ask_hosts).cancel("t")
    return verdict.done, verdict.message


def found(outcome: str, reason: str = "") -> tuple[Found, ...]:
    return (Found("celery-browser@1 on worker1", "absent"), Found(WHERE, outcome, reason))


def test_a_task_that_has_ended_is_left_alone() -> None:
    world = World(results=[DONE])
    assert told(world) == (False, "already ended: done")
    assert world.story == ["result"]


def test_it_is_marked_before_anybody_looks() -> None:
    """What is found waiting afterwards cannot be started any more."""
    world = World(waits=[True])
    assert told(world) == (True, "cancelled while queued; it will not be started")
    assert world.story == ["result", "revoke", "queues"]


def test_one_that_runs_is_cancelled_when_its_end_says_so() -> None:
    world = World(results=[PENDING, CANCELLED], hosts=[found("cancelled")])
    assert told(world) == (True, f"cancelled while running on {WHERE}")


@pytest.mark.parametrize(
    ("outcome", "results", "message"),
    [
        ("cancelled", [PENDING, DONE], "it ended before it could be given up: done"),
        ("cancelled", [PENDING, PENDING], f"{WHERE} gives it up; it has not ended yet"),
        ("uninterruptible", [PENDING], f"cannot be interrupted: it runs on {WHERE}"),
        ("no-answer", [PENDING], f"the process that runs it on {WHERE} does not answer"),
        ("ended", [PENDING, DONE], "already ended: done"),
        ("absent", [PENDING], "no such task: it does not wait, no instance has it"),
    ],
)
def test_what_is_not_cancelled_is_said(
    outcome: str, results: list[TaskResult], message: str
) -> None:
    done, said = told(World(results=results, hosts=[found(outcome)]))
    assert not done
    assert said.startswith(message)


def test_one_that_an_instance_has_not_begun_counts_as_queued() -> None:
    done, said = told(World(hosts=[found("revoked")]))
    assert (done, said) == (True, f"cancelled while queued; {WHERE} had not begun it")


def test_one_that_moves_while_it_is_looked_for_is_found_later() -> None:
    world = World(waits=[False, True], hosts=[found("absent")])
    assert told(world)[0]
    assert world.story.count("hosts") == 1


def test_a_host_that_is_away_may_have_it() -> None:
    away = (Found("worker2", "error", "no answer in 10 s"),)
    done, said = told(World(hosts=[away]))
    assert not done
    assert "no such task" not in said
    assert said.endswith("worker2: no answer in 10 s")


def test_a_host_that_is_away_does_not_matter_when_another_has_it() -> None:
    hosts = (Found("worker2", "error", "away"), *found("cancelled"))
    assert told(World(results=[PENDING, CANCELLED], hosts=[hosts]))[0]

"""Tasks that are cancelled: in every kind of pool, wherever they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psutil
import pytest

from swarm import unit_sockets
from swarm.cancellation import Cancellation, Found, Verdict
from swarm.delivery.find import waits
from tests.integration.stage import Stage
from tests.loopback import wait_until

NAP = {"html": "<p>x</p>"}


def ask(stage: Stage, task_id: str) -> Sequence[Found]:
    """As `swarm cancel` asks a host, without the way there."""
    answer = unit_sockets.cancel(task_id, stage.directory / "control")
    return [
        Found(f"{i['pool']}-{i['number']}", i.get("outcome", "error"), i.get("error", ""))
        for i in answer["instances"]
    ]


def cancel(stage: Stage, task_id: str) -> Verdict:
    def is_waiting(wanted: str) -> bool:
        with stage.redis.connect() as redis:
            return waits(redis, wanted, ("browser", "analysis"))

    return Cancellation(
        stage.client, waits=is_waiting, ask_hosts=lambda wanted: ask(stage, wanted)
    ).cancel(task_id)


def page(stage: Stage, path: str = "/slow?ms=20000") -> dict[str, Any]:
    return {"url": stage.site.url(path), "actions": [{"kind": "text"}]}


def submit_and_wait_for_visit(stage: Stage) -> str:
    visits = len(stage.site.visits)
    task_id = stage.client.submit("browser", page(stage))
    wait_until(lambda: len(stage.site.visits) > visits, what="the visit")
    return task_id


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_task_that_runs_is_given_up_and_the_next_one_done(stage: Stage, pool: str) -> None:
    worker = stage.run_ready(CELERY_POOL=pool, CELERY_CONCURRENCY="1" if pool == "solo" else "2")
    task_id = submit_and_wait_for_visit(stage)
    started_at = time.monotonic()
    assert cancel(stage, task_id) == Verdict(True, "cancelled while running on browser-1")  # noqa: FBT003
    assert time.monotonic() - started_at < 10, "the page would have taken twenty seconds"
    result = stage.client.result(task_id)
    assert result.state == "failed"
    assert "CANCELLED in cancel" in str(result.error)
    later = stage.client.submit("browser", page(stage, "/slow?ms=0"))
    assert stage.client.result(later, wait_s=20).state == "done"
    wait_until(lambda: worker.status()["active"] == 0, what="rest")
    assert (worker.status()["done"], worker.status()["failed"]) == (1, 1)
    assert 'code="CANCELLED"' in worker.metrics()
    assert 'outcome="retry"' not in worker.metrics()
    with stage.redis.connect() as redis:
        assert redis.keys("swarm:held:*") == []
    assert cancel(stage, task_id).message.startswith("already ended: failed, PermanentJobError")


def test_the_right_one_of_several_is_given_up(stage: Stage) -> None:
    stage.run_ready(CELERY_CONCURRENCY="2")
    visits = len(stage.site.visits)
    first, second = (stage.client.submit("browser", page(stage, "/slow?ms=4000")) for _ in range(2))
    wait_until(lambda: len(stage.site.visits) == visits + 2, what="both visits")
    assert cancel(stage, second).done
    assert stage.client.result(first, wait_s=20).state == "done"
    assert "CANCELLED" in str(stage.client.result(second).error)


def test_a_task_that_waits_is_never_started(stage: Stage) -> None:
    task_id = stage.client.submit("browser", page(stage))
    later = stage.app.send_task("browser.run", args=[page(stage)], countdown=600).id
    urgent = stage.app.send_task("browser.run", args=[page(stage)], priority=9).id
    for queued in (task_id, later, urgent):
        verdict = cancel(stage, queued)
        assert verdict == Verdict(True, "cancelled while queued; it will not be started")  # noqa: FBT003
    visits = len(stage.site.visits)
    worker = stage.run_ready()
    for queued in (task_id, urgent):
        assert "TaskRevokedError" in str(stage.client.result(queued, wait_s=20).error)
    assert len(stage.site.visits) == visits
    assert worker.status()["done"] == 0
    revoked = 'swarm_tasks_total{code="",outcome="revoked",task="browser.run"} 2.0'
    wait_until(lambda: revoked in worker.metrics(), timeout_s=3, what="the count")


def test_a_task_far_back_in_a_long_queue_is_found(stage: Stage) -> None:
    first = stage.client.submit("analysis", NAP)
    with stage.redis.connect() as redis:
        [message] = redis.lrange("analysis", 0, -1)
        redis.lpush("analysis", *[message.replace(first.encode(), b"other")] * 2500)
        assert waits(redis, first, ("browser", "analysis"))
        assert not waits(redis, "absent", ("browser", "analysis"))


def test_plain_python_that_runs_cannot_be_interrupted(stage: Stage) -> None:
    runs = stage.directory / "runs"
    runs.touch()
    stage.run_ready("analysis", module="tests.integration.delivery_tasks", RUNS=str(runs))
    task = stage.app.send_task("analysis.note", args=["it", 4.0])
    wait_until(runs.read_text, what="its start")
    verdict = cancel(stage, task.id)
    assert not verdict.done
    assert verdict.message.startswith("cannot be interrupted: it runs on analysis-1")
    assert stage.client.result(task.id, wait_s=20).state == "done"


def test_a_frozen_process_does_not_answer_and_is_said_so(stage: Stage) -> None:
    worker = stage.run_ready()
    task_id = submit_and_wait_for_visit(stage)
    [child] = psutil.Process(worker.process.pid).children()
    child.suspend()
    try:
        verdict = cancel(stage, task_id)
    finally:
        child.resume()
    assert not verdict.done
    assert "does not answer" in verdict.message
    # The call is heard later, and it is still the right one.
    assert "CANCELLED" in str(stage.client.result(task_id, wait_s=20).error)


def test_the_command_says_what_became_of_it(stage: Stage) -> None:
    task_id = stage.client.submit("browser", page(stage, "/slow?ms=0"))
    ran = stage.swarm("cancel", task_id)
    assert (ran.returncode, ran.stdout) == (
        0,
        f"{task_id}: cancelled while queued; it will not be started\n",
    )
    stage.run_ready()
    done = stage.client.submit("browser", page(stage, "/slow?ms=0"))
    assert stage.client.result(done, wait_s=20).state == "done"
    for wanted, message, status in (
        (done, "already ended: done", 1),
        (task_id, "already ended: failed, TaskRevokedError: revoked", 1),
        ("never-issued", "no such task: it does not wait, no instance has it", 1),
        ("a b", "ID: got 'a b', expected a task's id", 2),
        ("-x" * 200, "No such option", 2),
    ):
        ran = stage.swarm("cancel", wanted)
        assert (ran.returncode, ran.stdout) == (status, "")
        assert message in ran.stderr, ran
        assert "Traceback" not in ran.stderr


def test_without_a_broker_nothing_is_cancelled(stage: Stage) -> None:
    ran = stage.swarm("cancel", "some-id", REDIS_URL="redis://:x@127.0.0.1:1/0")
    assert ran.returncode == 3
    assert "Traceback" not in ran.stderr

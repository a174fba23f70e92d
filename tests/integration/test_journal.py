"""What a worker's journal says of one task, by the task's id."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import psutil
import pytest

from tests.integration.stage import Stage
from tests.integration.worker_process import WorkerProcess
from tests.journal_socket import JournalSocket
from tests.loopback import wait_until


@pytest.fixture
def journald(stage: Stage) -> Iterator[JournalSocket]:
    listening = JournalSocket(stage.directory / "journal")
    yield listening
    listening.close()


def run(stage: Stage, journald: JournalSocket, pool: str) -> WorkerProcess:
    return stage.run_ready(
        module="tests.integration.journal_lines",
        JOURNAL=str(journald.path),
        CELERY_POOL=pool,
    )


def _has_lines(journald: JournalSocket, task_id: str, count: int) -> bool:
    return len(journald.of_task(task_id)) == count


def page(stage: Stage, path: str = "/slow?ms=300") -> dict[str, Any]:
    return {"url": stage.site.url(path), "actions": [{"kind": "text"}]}


def submit_and_wait_for_visit(stage: Stage) -> str:
    visits = len(stage.site.visits)
    task_id = stage.client.submit("browser", page(stage, "/slow?ms=3000"))
    wait_until(lambda: len(stage.site.visits) > visits, what="the visit")
    return task_id


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_tasks_lines_are_found_by_its_id(
    stage: Stage, journald: JournalSocket, pool: str
) -> None:
    worker = run(stage, journald, pool)
    ids = [stage.client.submit("browser", page(stage)) for _ in range(2)]
    for task_id in ids:
        assert stage.client.result(task_id, wait_s=30).state == "done"
    for task_id in ids:
        wait_until(partial(_has_lines, journald, task_id, 2), what="its two lines")
        received, ended = journald.of_task(task_id)
        assert received["MESSAGE"] == f"Task browser.run[{task_id}] received"
        assert received["LOGGER"] == "celery.worker.strategy"
        assert ended["MESSAGE"].startswith(f"browser.run[{task_id}] success seconds=")
        assert float(ended["SWARM_SECONDS"]) > 0.3
        for entry in (received, ended):
            assert entry["SWARM_POOL"] == "browser"
            assert entry["SWARM_INSTANCE"] == "1"
            assert entry["SWARM_HOST"] == "here"
            assert entry["PRIORITY"] == "6"
    assert [e["MESSAGE"] for e in journald.entries if e["MESSAGE"].startswith("ready")]
    assert worker.log == ""


def test_a_page_that_fails_is_one_line_that_says_why(stage: Stage, journald: JournalSocket) -> None:
    worker = run(stage, journald, "prefork")
    task_id = stage.client.submit("browser", page(stage, "/none"))
    result = stage.client.result(task_id, wait_s=30)
    assert (result.state, result.value["host"]) == ("failed", "here")
    wait_until(lambda: len(journald.of_task(task_id)) == 2, what="its two lines")
    ended = journald.of_task(task_id)[1]
    assert ended["MESSAGE"].startswith(f"browser.run[{task_id}] failure seconds=")
    assert ended["MESSAGE"].endswith(
        'code=HTTP_STATUS stage=navigation reason="the page answered 404"'
    )
    assert ended["SWARM_CODE"] == "HTTP_STATUS"
    assert ended["PRIORITY"] == "4"
    assert worker.log == ""


def test_what_the_engine_and_the_parent_say_of_a_task_has_its_id(
    stage: Stage, journald: JournalSocket
) -> None:
    worker = run(stage, journald, "prefork")
    task_id = submit_and_wait_for_visit(stage)
    for browser in worker.browsers():
        browser.kill()
    assert stage.client.result(task_id, wait_s=30).state == "done"
    wait_until(lambda: len(journald.of_task(task_id)) == 3, what="its three lines")
    assert [entry["MESSAGE"] for entry in journald.of_task(task_id)][1] == (
        "browser lost during a task; trying once more on a new one"
    )

    lost_id = submit_and_wait_for_visit(stage)
    [child] = psutil.Process(worker.process.pid).children()
    child.send_signal(signal.SIGKILL)
    assert stage.client.result(lost_id, wait_s=50).state == "done"
    told = [entry["MESSAGE"] for entry in journald.of_task(lost_id)]
    assert sum("received" in line for line in told) == 2
    assert any("WorkerLostError" in line for line in told), told
    assert 'swarm_tasks_total{code="",outcome="lost",task="browser.run"} 1.0' in worker.metrics()

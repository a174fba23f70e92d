"""An instance near the limits of its unit, whose cgroup is a directory of the test's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_cgroup
from tests.integration.stage import Stage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import wait_until


def start(stage: Stage, number: int = 1, **environ: str) -> tuple[WorkerProcess, Path]:
    cgroup = make_cgroup(stage.directory / f"cgroup-{number}", pids=10)
    stage.write_config(worker={"cgroup": str(cgroup)})
    return stage.run_ready(number=number, **environ), cgroup


def press(worker: WorkerProcess, cgroup: Path) -> None:
    make_cgroup(cgroup, pids=95)
    wait_until(lambda: worker.status().get("paused") == "pids 95 % of 100", what="the pause")


def relieve(worker: WorkerProcess, cgroup: Path) -> None:
    make_cgroup(cgroup, pids=10)
    wait_until(lambda: "paused" not in worker.status(), what="the end of the pause")


def page(stage: Stage, *, ms: int = 0) -> dict[str, Any]:
    return {"url": stage.site.url(f"/slow?ms={ms}"), "actions": [{"kind": "text"}]}


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_paused_instance_ends_what_it_has_and_takes_nothing(stage: Stage, pool: str) -> None:
    worker, cgroup = start(stage, CELERY_POOL=pool)
    visits = len(stage.site.visits)
    running = stage.client.submit("browser", page(stage, ms=2000))
    wait_until(lambda: len(stage.site.visits) > visits, what="the visit")
    press(worker, cgroup)
    waiting = stage.client.submit("browser", page(stage))
    assert stage.client.result(running, wait_s=20).state == "done"
    assert any("browser: paused: pids 95 % of 100, " in line for line in worker.notify.told)
    # Longer than it takes to begin a task.
    assert stage.client.result(waiting, wait_s=3).state == "pending"
    with stage.redis.connect() as redis:
        assert redis.llen("browser") == 1
    assert "swarm_worker_paused 1.0" in worker.metrics()
    relieve(worker, cgroup)
    assert stage.client.result(waiting, wait_s=20).state == "done"
    assert worker.log.count("takes no more tasks for now") == 1
    assert worker.log.count("takes tasks again") == 1


def test_what_was_announced_to_a_paused_worker_is_for_another(stage: Stage) -> None:
    """It waits at the bell, and the broker gives the ring to who has waited longest."""
    first, cgroup = start(stage, 1)
    press(first, cgroup)
    start(stage, 2)
    for _ in range(3):
        task_id = stage.client.submit("browser", page(stage))
        assert stage.client.result(task_id, wait_s=10).state == "done"
    assert first.status()["done"] == 0
    for worker in stage.workers[1:]:
        worker.kill()
    waiting = stage.client.submit("browser", page(stage))
    relieve(first, cgroup)
    assert stage.client.result(waiting, wait_s=10).state == "done"


def test_an_idle_browser_gives_its_memory_back_under_pressure(stage: Stage) -> None:
    worker, cgroup = start(stage)
    task_id = stage.client.submit("browser", page(stage))
    assert stage.client.result(task_id, wait_s=20).state == "done"
    press(worker, cgroup)
    retired = 'swarm_browser_events_total{cause="pressure",event="retired"} 1.0'
    wait_until(lambda: retired in worker.metrics(), what="a fresh browser")
    assert worker.status()["browser"] == "up"

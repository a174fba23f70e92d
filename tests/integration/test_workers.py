"""One worker's life: how it starts, what it survives, how it leaves."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import psutil
import pytest

from tests.integration.stage import Stage
from tests.loopback import RedisServer, free_port, wait_until


def slow_page(stage: Stage, *, ms: int) -> dict[str, Any]:
    return {"url": stage.site.url(f"/slow?ms={ms}"), "actions": [{"kind": "text"}]}


def submit_and_wait_for_visit(stage: Stage, payload: dict[str, Any]) -> str:
    visits = len(stage.site.visits)
    task_id = stage.client.submit("browser", payload)
    wait_until(lambda: len(stage.site.visits) > visits, what="the visit")
    return task_id


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_every_celery_pool_does_browser_tasks(stage: Stage, pool: str) -> None:
    """prefork is what all other tests run."""
    worker = stage.run_ready(CELERY_POOL=pool)
    ids = [stage.client.submit("browser", slow_page(stage, ms=100)) for _ in range(3)]
    for task_id in ids:
        assert stage.client.result(task_id, wait_s=20).state == "done"
    wait_until(lambda: worker.status()["done"] == 3, timeout_s=3, what="the count")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait_exit() == 0
    assert not worker.status_path.exists()


def test_threads_run_tasks_at_once_on_one_browser(stage: Stage) -> None:
    worker = stage.run_ready(CELERY_POOL="threads", CELERY_CONCURRENCY="3")
    assert worker.status()["capacity"] == 3
    started_at = time.monotonic()
    ids = [stage.client.submit("browser", slow_page(stage, ms=1500)) for _ in range(3)]
    for task_id in ids:
        assert stage.client.result(task_id, wait_s=20).state == "done"
    assert time.monotonic() - started_at < 4
    assert len(worker.browsers()) == 1


def test_sigterm_during_a_task_finishes_it_first(stage: Stage) -> None:
    worker = stage.run_ready()
    task_id = submit_and_wait_for_visit(stage, slow_page(stage, ms=2000))
    waiting = stage.client.submit("browser", slow_page(stage, ms=0))
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "STOPPING=1" in worker.notify.told, timeout_s=3, what="STOPPING=1")
    assert worker.wait_exit() == 0, worker.log
    assert stage.client.result(task_id).state == "done"
    assert not worker.status_path.exists()
    # What it had not begun is for another instance.
    stage.run_ready(number=2)
    assert stage.client.result(waiting, wait_s=20).state == "done"


def test_a_worker_killed_during_a_task_loses_nothing(stage: Stage) -> None:
    """Its child dies with its task, which another child does again."""
    worker = stage.run_ready()
    task_id = submit_and_wait_for_visit(stage, slow_page(stage, ms=1500))
    [child] = psutil.Process(worker.process.pid).children()
    child.kill()
    assert stage.client.result(task_id, wait_s=50).state == "done"
    assert worker.process.poll() is None


def test_wrong_variables_are_exit_2_with_every_problem(stage: Stage) -> None:
    worker = stage.start("browser", CELERY_POOL="gevent", CELERY_CONCURRENCY="0", REDIS_URL="x")
    assert worker.wait_exit() == 2
    lines = worker.log.splitlines()
    assert [line.split(": ")[1] for line in lines] == [
        "REDIS_URL",
        "CELERY_CONCURRENCY",
        "CELERY_POOL",
    ]
    assert not worker.ready


def test_a_taken_metrics_port_is_exit_2(stage: Stage) -> None:
    stage.run_ready("analysis", 1)
    second = stage.start("analysis", 1)
    assert second.wait_exit() == 2
    assert "metrics_port_base" in second.log
    assert stage.workers[0].status_path.exists()


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_without_chromium_it_is_exit_1_quickly_and_never_ready(stage: Stage, pool: str) -> None:
    stage.write_config(browser={"executable": "/absent/chromium"})
    started_at = time.monotonic()
    worker = stage.start(CELERY_POOL=pool)
    assert worker.wait_exit() == 1, worker.log
    assert time.monotonic() - started_at < 15
    assert not worker.ready
    assert "/absent/chromium" in worker.log
    assert not worker.status_path.exists()


def test_children_are_replaced_after_their_tasks_and_go_on(stage: Stage) -> None:
    worker = stage.run_ready(CELERY_MAX_TASKS="2")
    ids = [stage.client.submit("browser", slow_page(stage, ms=0)) for _ in range(5)]
    for task_id in ids:
        assert stage.client.result(task_id, wait_s=50).state == "done"
    wait_until(lambda: len(worker.browsers()) == 1, what="one browser")
    wait_until(lambda: worker.status()["done"] == 5, timeout_s=3, what="the count")


def test_a_task_that_kills_every_process_it_meets_is_a_dead_letter(stage: Stage) -> None:
    worker = stage.run_ready()
    task_id = stage.client.submit("browser", slow_page(stage, ms=8_000))
    killed: set[int] = set()

    def kill_the_next_process() -> bool:
        if worker.status()["active"] == 0:
            return False
        for child in psutil.Process(worker.process.pid).children():
            if child.pid not in killed and child.cpu_times().user > 0:
                killed.add(child.pid)
                child.kill()
                return True
        return False

    for _ in range(3):
        wait_until(kill_the_next_process, timeout_s=30, what="the task in a new process")
        wait_until(lambda: worker.status()["active"] == 0, what="the loss noticed")
    result = stage.client.result(task_id, wait_s=20)
    assert result.state == "failed"
    assert "3 workers died under it" in str(result.error)
    later = stage.client.submit("browser", slow_page(stage, ms=0))
    assert stage.client.result(later, wait_s=20).state == "done"


def test_a_task_ends_twenty_seconds_before_the_pools_limit(stage: Stage) -> None:
    stage.write_config(pools=_with_limit(stage, 30))
    worker = stage.run_ready()
    task_id = stage.client.submit("browser", slow_page(stage, ms=20_000))
    result = stage.client.result(task_id, wait_s=18)
    assert result.state == "failed"
    assert "DEADLINE" in str(result.error)
    assert worker.process.poll() is None


def test_a_frozen_pool_child_is_killed_at_the_pools_limit(stage: Stage) -> None:
    stage.write_config(pools=_with_limit(stage, 30))
    worker = stage.run_ready()
    [child] = psutil.Process(worker.process.pid).children()
    task_id = stage.client.submit("browser", slow_page(stage, ms=3_000))
    wait_until(lambda: worker.status()["active"] == 1, what="the task")
    child.suspend()
    result = stage.client.result(task_id, wait_s=50)
    assert result.state == "failed"
    assert "TimeLimitExceeded" in str(result.error)
    wait_until(lambda: 'code="TIME_LIMIT"' in worker.metrics(), timeout_s=3, what="the count")
    later = stage.client.submit("browser", slow_page(stage, ms=0))
    assert stage.client.result(later, wait_s=20).state == "done"
    assert worker.process.poll() is None


def _with_limit(stage: Stage, seconds: int) -> dict[str, Any]:
    pools = json.loads(stage.settings.model_dump_json())["pools"]
    pools["browser"]["task_time_limit_s"] = seconds
    return {"browser": pools["browser"]}


@pytest.fixture
def own_redis(stage: Stage) -> Any:
    """A Redis that a test may stop."""
    directory = stage.directory / "redis"
    directory.mkdir()
    with RedisServer(directory) as server:
        stage.redis = server
        yield server


def test_a_broker_that_goes_and_comes_back_is_told_and_work_goes_on(
    stage: Stage, own_redis: RedisServer
) -> None:
    worker = stage.run_ready()
    own_redis.stop()
    wait_until(lambda: worker.status()["broker"] == "down", what="broker down")
    wait_until(
        lambda: any(line.endswith("redis primary down") for line in worker.notify.told),
        timeout_s=3,
        what="STATUS of it",
    )
    own_redis.start()
    wait_until(lambda: worker.status()["broker"] == "ok", timeout_s=30, what="broker back")
    task_id = stage.client.submit("browser", slow_page(stage, ms=0))
    assert stage.client.result(task_id, wait_s=20).state == "done"


@pytest.mark.parametrize("state", ["closed", "frozen"])
def test_redis_away_at_submit_is_exit_3_within_seconds_and_nothing_is_queued(
    stage: Stage, own_redis: RedisServer, state: str
) -> None:
    url = own_redis.url
    if state == "closed":
        url = url.replace(str(own_redis.port), str(free_port()))
    else:
        assert own_redis.process is not None
        own_redis.process.send_signal(signal.SIGSTOP)
    payload = json.dumps(slow_page(stage, ms=0))
    started_at = time.monotonic()
    ran = stage.swarm("submit", "browser", payload, REDIS_URL=url)
    seconds = time.monotonic() - started_at
    assert ran.returncode == 3, ran
    assert ran.stdout == ""
    assert "nothing was queued" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "s3cret" not in ran.stderr
    assert seconds < (5 if state == "frozen" else 3)
    assert own_redis.process is not None
    own_redis.process.send_signal(signal.SIGCONT)
    with own_redis.connect() as redis:
        assert redis.llen("browser") == 0


def test_a_wrong_password_at_submit_is_exit_2_and_names_the_variable(
    stage: Stage, own_redis: RedisServer
) -> None:
    url = own_redis.url.replace("s3cret", "wr0ng")
    payload = json.dumps(slow_page(stage, ms=0))
    ran = stage.swarm("submit", "browser", payload, REDIS_URL=url)
    assert ran.returncode == 2, ran
    assert ran.stderr.startswith("swarm: REDIS_URL: got redis://127.0.0.1"), ran.stderr
    assert "expected the name and the password of a user" in ran.stderr
    assert "wr0ng" not in ran.stderr


def test_redis_away_at_result_is_exit_3_within_seconds(
    stage: Stage, own_redis: RedisServer
) -> None:
    own_redis.stop()
    for words in (["result", "some-id"], ["result", "some-id", "--wait", "5"]):
        started_at = time.monotonic()
        ran = stage.swarm(*words)
        assert ran.returncode == 3, ran
        assert time.monotonic() - started_at < 8
        assert "Traceback" not in ran.stderr


def test_waiting_for_a_result_ends_in_time(stage: Stage) -> None:
    started_at = time.monotonic()
    result = stage.client.result("never-issued", wait_s=1)
    assert result.state == "pending"
    assert time.monotonic() - started_at < 3
    ran = stage.swarm("result", "never-issued", "--wait", "0.5")
    assert (ran.returncode, ran.stderr) == (1, "")

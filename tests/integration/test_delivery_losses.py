"""Nothing is lost and nothing done twice: workers, processes, connections and Redis that end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from celery import chain
from kombu.exceptions import OperationalError

from tests.integration.delivery_stage import DeliveryStage
from tests.integration.stage import Stage
from tests.loopback import RedisServer, wait_until


@pytest.fixture
def own(stage: Stage) -> Iterator[DeliveryStage]:
    lab = DeliveryStage(stage)
    yield lab
    lab.app.close()


# -- limits, on prefork


def test_limits_end_tasks(own: DeliveryStage) -> None:
    own.worker()
    assert own.send("soft").get(timeout=15) == "limited"
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        own.send("hard").get(timeout=15)
    assert own.runs().count("hard") == 1
    wait_until(lambda: own.held() == 0, what="its end")
    assert own.send("add", 1, 1).get(timeout=15) == 2


def test_a_task_that_kills_its_process_three_times_is_a_dead_letter(own: DeliveryStage) -> None:
    own.worker()
    result = own.send("die")
    with pytest.raises(Exception, match="3 workers died under it"):
        result.get(timeout=30)
    assert own.runs() == ["die"] * 3
    shown = json.loads(own.stage.swarm("dead", "show", result.id).stdout)
    assert len(shown["history"]) == 3
    assert "analysis-1@here" in shown["history"][0]
    replayed = own.stage.swarm("dead", "replay", result.id)
    assert "is back in analysis" in replayed.stdout
    wait_until(lambda: own.runs() == ["die"] * 6, what="three more deaths")
    assert own.send("add", 1, 1).get(timeout=15) == 2


# -- deaths and losses


def test_what_a_killed_worker_held_is_given_back_and_done(own: DeliveryStage) -> None:
    worker = own.worker(INVOCATION_ID="first")
    result = own.send("note", "twice", 3.0)
    wait_until(lambda: own.runs() == ["twice"], what="its run")
    worker.kill()
    assert own.held() == 1
    assert "1 to their queues" in own.give_back("first").stdout
    assert own.held() == 0
    own.worker(INVOCATION_ID="second")
    assert result.get(timeout=20) == "twice"
    assert own.runs() == ["twice", "twice"]


def test_the_next_start_gives_back_when_nobody_did(own: DeliveryStage) -> None:
    worker = own.worker(INVOCATION_ID="first")
    result = own.send("note", "twice", 3.0)
    wait_until(lambda: own.runs() == ["twice"], what="its run")
    worker.kill()
    own.worker(INVOCATION_ID="second")
    assert result.get(timeout=20) == "twice"


def test_giving_back_without_a_broker_does_not_fail_the_stop(own: DeliveryStage) -> None:
    own.stage.redis = RedisServer(own.stage.directory)
    started_at = time.monotonic()
    assert "nothing given back yet" in own.give_back("first").stderr
    assert time.monotonic() - started_at < 5


def test_a_stop_returns_what_was_taken_and_not_begun(own: DeliveryStage) -> None:
    worker = own.worker(CELERY_POOL="solo")
    blocker = own.send("note", "blocker", 2.0)
    wait_until(lambda: own.runs() == ["blocker"], what="its run")
    waiting = [own.send("note", f"waiting {n}") for n in range(3)]
    worker.process.terminate()
    assert worker.wait_exit() == 0
    assert blocker.get(timeout=5) == "blocker"
    assert (own.held(), own.waiting()) == (0, 3)
    own.worker(2)
    for result in waiting:
        result.get(timeout=10)


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_an_idle_worker_stops_at_once(own: DeliveryStage, pool: str) -> None:
    worker = own.worker(CELERY_POOL=pool)
    with own.stage.redis.connect() as redis:
        wait_until(
            lambda: any(client["cmd"] == "blpop" for client in redis.client_list()),
            what="its wait for work",
        )
    started_at = time.monotonic()
    worker.process.terminate()
    assert worker.wait_exit() == 0
    assert time.monotonic() - started_at < 4


@pytest.fixture
def durable(own: DeliveryStage) -> Iterator[tuple[DeliveryStage, RedisServer]]:
    """A Redis that a test may stop and start, and that then has what it had."""
    directory = own.stage.directory / "redis"
    directory.mkdir()
    redis = RedisServer(directory, options=("--appendonly", "yes", "--appendfsync", "always"))
    redis.start()
    own.stage.redis = redis
    stage = DeliveryStage(own.stage)
    yield stage, redis
    stage.app.close()
    redis.stop()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_redis_that_restarts_during_a_task_commits_it_once(
    durable: tuple[DeliveryStage, RedisServer], pool: str
) -> None:
    """With what follows from it, though this process has never published before."""
    stage, redis = durable
    worker = stage.worker(CELERY_POOL=pool)
    result = chain(stage.task("note", 20, 3.0), stage.task("add", 22)).apply_async()
    wait_until(lambda: stage.runs() == ["20"], what="its run")
    redis.stop()
    time.sleep(4)
    redis.start()
    assert result.get(timeout=20) == 42
    wait_until(lambda: stage.held() == 0, what="its commit")
    assert stage.runs() == ["20", "add 20 22"]
    assert worker.process.poll() is None


def test_a_retry_is_kept_while_redis_is_away(durable: tuple[DeliveryStage, RedisServer]) -> None:
    stage, redis = durable
    stage.worker()
    result = stage.send("flaky", 1, 0.5, 3.0)
    wait_until(lambda: stage.runs() == ["flaky 0"], what="its run")
    redis.stop()
    time.sleep(4)
    redis.start()
    assert result.get(timeout=20) == "after 1"
    assert stage.runs() == ["flaky 0", "flaky 1"]


def test_connections_cut_during_a_task_neither_repeat_nor_lose_it(own: DeliveryStage) -> None:
    own.worker()
    result = own.send("note", "once", 3.0)
    wait_until(lambda: own.runs() == ["once"], what="its run")
    with own.stage.redis.connect() as redis:
        for _ in range(3):
            for connection in redis.client_list():
                if int(connection["id"]) != redis.client_id():
                    redis.client_kill_filter(_id=connection["id"])
            time.sleep(0.5)
    assert result.get(timeout=20) == "once"
    assert own.runs() == ["once"]
    assert own.send("add", 1, 1).get(timeout=20) == 2
    wait_until(lambda: own.held() == 0, what="its commit")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_is_given_back_after_its_connection_is_gone(own: DeliveryStage, pool: str) -> None:
    """Celery rejects through the channel that brought the message, which is closed by then."""
    worker = own.worker(CELERY_POOL=pool, CELERY_CONCURRENCY="2")
    kills = pool == "prefork"
    result = own.send("note", "word", 5.0) if kills else own.send("reject", "word", 5.0)
    wait_until(lambda: own.runs() == ["word"], what="its run")
    children = psutil.Process(worker.process.pid).children()
    with own.stage.redis.connect() as redis:
        waiting = _connections_that_wait(redis)
        for connection in redis.client_list():
            if int(connection["id"]) != redis.client_id():
                redis.client_kill_filter(_id=connection["id"])
        wait_until(lambda: _connections_that_wait(redis) - waiting, what="its new connection")
    if kills:
        for child in children:
            child.kill()
    assert result.get(timeout=20) == ("word" if kills else True)
    assert own.runs() == ["word", "word"]
    assert worker.process.poll() is None
    wait_until(lambda: own.held() == 0, what="its end")


def test_the_death_of_a_pool_process_is_noticed_at_once_on_a_busy_machine(
    own: DeliveryStage,
) -> None:
    """Its pipe closes before it can be waited for, the longer the busier the machine is."""
    worker = own.worker()
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        with own.stage.redis.connect() as redis:
            for number in range(5):
                result = own.send("note", number, 1.0)
                wait_until(lambda: len(own.runs()) == 2 * number + 1, what="its run")  # noqa: B023
                psutil.Process(worker.process.pid).children()[0].kill()
                wait_until(
                    lambda: list(redis.scan_iter("swarm:deaths:*")),
                    timeout_s=2.0,
                    what="the death of its process",
                )
                assert result.get(timeout=20) == number
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def _connections_that_wait(redis: Any) -> set[str]:
    return {each["id"] for each in redis.client_list() if each["cmd"] == "blpop"}


def _freeze(own: DeliveryStage, redis: RedisServer) -> None:
    """Stop Redis from answering; all but the connections on which workers wait are closed."""
    with own.stage.redis.connect() as client:
        for connection in client.client_list():
            if connection["cmd"] != "blpop" and int(connection["id"]) != client.client_id():
                client.client_kill_filter(_id=connection["id"])
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)


@pytest.mark.parametrize("end", ["killed", "limited"])
@pytest.mark.parametrize("how", ["frozen", "stopped"])
def test_an_end_that_redis_could_not_be_told_is_told_when_it_answers_again(
    durable: tuple[DeliveryStage, RedisServer], how: str, end: str
) -> None:
    """A frozen one keeps the connection on which the worker waits: it does not connect anew."""
    stage, redis = durable
    worker = stage.worker()
    result = stage.send("hard") if end == "limited" else stage.send("note", "word", 6.0)
    wait_until(lambda: len(stage.runs()) == 1, what="its run")
    child = psutil.Process(worker.process.pid).children()[0]
    if how == "frozen":
        _freeze(stage, redis)
    else:
        redis.stop()
    if end == "killed":
        child.kill()
    time.sleep(9 if how == "frozen" else 5)
    if how == "frozen":
        assert redis.process is not None
        redis.process.send_signal(signal.SIGCONT)
    else:
        redis.start()
    if end == "killed":
        wait_until(lambda: len(stage.runs()) == 2, what="its second run")
        with redis.connect() as client:
            (deaths,) = client.scan_iter("swarm:deaths:*")
            assert client.llen(deaths) == 1
        assert result.get(timeout=15) == "word"
    else:
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            result.get(timeout=10)
    wait_until(lambda: stage.held() == 0, what="its end")
    assert stage.runs() == (["word"] * 2 if end == "killed" else ["hard"])
    assert "Couldn't reject" not in worker.log
    assert stage.send("add", 1, 1).get(timeout=15) == 2


def test_a_worker_that_was_given_up_commits_nothing(own: DeliveryStage) -> None:
    first = own.worker(1, INVOCATION_ID="first")
    result = own.send("note", "word", 3.0)
    wait_until(lambda: own.runs() == ["word"], what="its run")
    family = [psutil.Process(first.process.pid)]
    family += family[0].children(recursive=True)
    for process in family:
        process.suspend()
    own.give_back("first")
    own.worker(2)
    assert result.get(timeout=20) == "word"
    with own.stage.redis.connect() as redis:
        redis.delete(f"celery-task-meta-{result.id}")
        for process in family:
            process.resume()
        wait_until(lambda: "came too late" in first.log, what="the late end")
        assert redis.get(f"celery-task-meta-{result.id}") is None
    assert own.runs() == ["word", "word"]


# -- producers


@pytest.mark.parametrize("how", ["closed", "frozen", "frozen in use"])
def test_plain_celery_calls_fail_soon_when_the_broker_is_away(own: DeliveryStage, how: str) -> None:
    redis = RedisServer(own.stage.directory)
    redis.start()
    own.stage.redis = redis
    lab = DeliveryStage(own.stage)
    try:
        if how == "frozen in use":
            lab.send("note", "before")
        if how == "closed":
            redis.stop()
        else:
            assert redis.process is not None
            os.kill(redis.process.pid, signal.SIGSTOP)
        for _ in range(2):
            started_at = time.monotonic()
            with pytest.raises(OperationalError):
                lab.send("note", "never")
            assert time.monotonic() - started_at < 3
    finally:
        lab.app.close()
        redis.stop()


def test_a_broker_that_restarted_takes_the_next_task(own: DeliveryStage) -> None:
    redis = RedisServer(own.stage.directory)
    redis.start()
    own.stage.redis = redis
    lab = DeliveryStage(own.stage)
    try:
        lab.send("note", "before")
        redis.stop()
        redis.start()
        lab.send("note", "after")
        assert lab.waiting() == 1
    finally:
        lab.app.close()
        redis.stop()

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

from swarm.delivery import scripts
from tests.integration.delivery_stage import DeliveryStage
from tests.integration.stage import Stage
from tests.loopback import RedisServer, wait_until


@pytest.fixture
def delivery(stage: Stage) -> Iterator[DeliveryStage]:
    delivery = DeliveryStage(stage)
    yield delivery
    delivery.app.close()


# -- limits, on prefork


def test_limits_end_tasks(delivery: DeliveryStage) -> None:
    delivery.worker()
    assert delivery.send("soft").get(timeout=15) == "limited"
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        delivery.send("hard").get(timeout=15)
    assert delivery.runs().count("hard") == 1
    wait_until(lambda: delivery.held() == 0, what="its end")
    assert delivery.send("add", 1, 1).get(timeout=15) == 2


def test_a_task_that_kills_its_process_three_times_is_a_dead_letter(
    delivery: DeliveryStage,
) -> None:
    delivery.worker()
    result = delivery.send("die")
    with pytest.raises(Exception, match="3 workers died under it"):
        result.get(timeout=30)
    assert delivery.runs() == ["die"] * 3
    shown = json.loads(delivery.stage.swarm("dead", "show", result.id).stdout)
    assert len(shown["history"]) == 3
    assert "analysis-1@here" in shown["history"][0]
    replayed = delivery.stage.swarm("dead", "replay", result.id)
    assert "is back in analysis" in replayed.stdout
    wait_until(lambda: delivery.runs() == ["die"] * 6, what="three more deaths")
    assert delivery.send("add", 1, 1).get(timeout=15) == 2


def test_a_time_limit_ends_a_task_once(delivery: DeliveryStage) -> None:
    """Celery tells of it twice: as a failure, and as a timeout."""
    delivery.worker()
    result = delivery.send("hard", link_error=delivery.task("told"))
    with pytest.raises(Exception, match="TimeLimitExceeded"):
        result.get(timeout=15)
    wait_until(lambda: result.id in delivery.runs(), what="its errback")
    delivery.wait_idle()
    assert delivery.runs() == ["hard", result.id]


def test_a_time_limit_of_a_task_that_others_have_done_changes_nothing(
    delivery: DeliveryStage,
) -> None:
    first = delivery.worker(1, INVOCATION_ID="first")
    result = delivery.send("stubborn", link_error=delivery.task("told"))
    wait_until(lambda: delivery.runs() == ["stubborn"], what="its run")
    delivery.give_back("first")
    delivery.worker(2)
    assert result.get(timeout=10) == "good"
    wait_until(lambda: "came too late" in first.log, what="the limit of its first run")
    delivery.wait_idle()
    assert result.state == "SUCCESS"
    assert delivery.runs() == ["stubborn"] * 2


def test_a_soft_limit_during_the_commit_is_too_late(delivery: DeliveryStage) -> None:
    worker = delivery.worker()
    result = delivery.send("late", link_error=delivery.task("told"))
    wait_until(lambda: delivery.runs() == ["late"], what="its run")
    with delivery.stage.redis.connect() as redis:
        redis.config_set("min-replicas-to-write", 1)
        time.sleep(4)
        redis.config_set("min-replicas-to-write", 0)
    assert result.get(timeout=10) == "in time"
    delivery.wait_idle()
    assert delivery.runs() == ["late"]
    assert "waits for the broker" in worker.log
    assert "Soft time limit" in worker.log


# -- deaths and losses


def test_what_a_killed_worker_held_is_given_back_and_done(delivery: DeliveryStage) -> None:
    worker = delivery.worker(INVOCATION_ID="first")
    result = delivery.send("note", "twice", 3.0)
    wait_until(lambda: delivery.runs() == ["twice"], what="its run")
    worker.kill()
    assert delivery.held() == 1
    assert "1 to their queues" in delivery.give_back("first").stdout
    assert delivery.held() == 0
    delivery.worker(INVOCATION_ID="second")
    assert result.get(timeout=20) == "twice"
    assert delivery.runs() == ["twice", "twice"]


def test_a_pool_process_that_is_told_to_end_loses_nothing(delivery: DeliveryStage) -> None:
    """SIGTERM raises in the midst of the body, and is no end of the task."""
    worker = delivery.worker()
    result = delivery.send("note", "twice", 3.0)
    wait_until(lambda: delivery.runs() == ["twice"], what="its run")
    psutil.Process(worker.process.pid).children()[0].terminate()
    assert result.get(timeout=20) == "twice"
    assert delivery.runs() == ["twice", "twice"]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_cold_shutdown_loses_nothing(delivery: DeliveryStage, pool: str) -> None:
    worker = delivery.worker(CELERY_POOL=pool)
    result = delivery.send("note", "twice", 5.0)
    wait_until(lambda: delivery.runs() == ["twice"], what="its run")
    worker.process.send_signal(signal.SIGQUIT)
    worker.process.wait(timeout=20)
    # Threads cannot be broken off: they end it first.
    assert (delivery.held(), delivery.waiting()) == (0, 1 if pool == "prefork" else 0)
    delivery.worker(2)
    assert result.get(timeout=20) == "twice"


def test_the_next_start_gives_back_when_nobody_did(delivery: DeliveryStage) -> None:
    worker = delivery.worker(INVOCATION_ID="first")
    result = delivery.send("note", "twice", 3.0)
    wait_until(lambda: delivery.runs() == ["twice"], what="its run")
    worker.kill()
    delivery.worker(INVOCATION_ID="second")
    assert result.get(timeout=20) == "twice"


@pytest.mark.parametrize(("ended", "deaths"), [("signal", 1), ("success", 0)])
def test_who_stopped_as_told_did_not_die_under_what_it_held(
    delivery: DeliveryStage, ended: str, deaths: int
) -> None:
    """It could not give it back itself: the broker was away then."""
    delivery.send("note", "word")
    holder = f"{delivery.stage.environ['SWARM_HOST']}:analysis:1:first"
    with delivery.stage.redis.connect() as redis:
        scripts.TAKE.run(redis, holder, 1, "0", "analysis", "analysis")
        assert "1 to their queues" in delivery.give_back("first", ended=ended).stdout
        assert delivery.waiting() == 1
        assert len(list(redis.scan_iter("swarm:deaths:*"))) == deaths


def test_giving_back_without_a_broker_does_not_fail_the_stop(delivery: DeliveryStage) -> None:
    delivery.stage.redis = RedisServer(delivery.stage.directory)
    started_at = time.monotonic()
    assert "nothing given back yet" in delivery.give_back("first").stderr
    assert time.monotonic() - started_at < 5


def test_a_stop_returns_what_was_taken_and_not_begun(delivery: DeliveryStage) -> None:
    worker = delivery.worker(CELERY_POOL="solo")
    blocker = delivery.send("note", "blocker", 2.0)
    wait_until(lambda: delivery.runs() == ["blocker"], what="its run")
    waiting = [delivery.send("note", f"waiting {n}") for n in range(3)]
    worker.process.terminate()
    assert worker.wait_exit() == 0
    assert blocker.get(timeout=5) == "blocker"
    assert (delivery.held(), delivery.waiting()) == (0, 3)
    delivery.worker(2)
    for result in waiting:
        result.get(timeout=10)


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_an_idle_worker_stops_at_once(delivery: DeliveryStage, pool: str) -> None:
    worker = delivery.worker(CELERY_POOL=pool)
    with delivery.stage.redis.connect() as redis:
        wait_until(
            lambda: any(client["cmd"] == "blpop" for client in redis.client_list()),
            what="its wait for work",
        )
    started_at = time.monotonic()
    worker.process.terminate()
    assert worker.wait_exit() == 0
    assert time.monotonic() - started_at < 4


@pytest.fixture
def durable(stage: Stage) -> Iterator[tuple[DeliveryStage, RedisServer]]:
    """A Redis that a test may stop and start, and that then has what it had."""
    directory = stage.directory / "redis"
    directory.mkdir()
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with RedisServer(directory, options=options) as redis:
        stage.redis = redis
        delivery = DeliveryStage(stage)
        yield delivery, redis
        delivery.app.close()


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_redis_that_restarts_during_a_task_commits_it_once(
    durable: tuple[DeliveryStage, RedisServer], pool: str
) -> None:
    """With what follows from it, though this process has never published before."""
    delivery, redis = durable
    worker = delivery.worker(CELERY_POOL=pool)
    result = chain(delivery.task("note", 20, 3.0), delivery.task("add", 22)).apply_async()
    wait_until(lambda: delivery.runs() == ["20"], what="its run")
    redis.stop()
    time.sleep(4)
    redis.start()
    assert result.get(timeout=20) == 42
    wait_until(lambda: delivery.held() == 0, what="its commit")
    assert delivery.runs() == ["20", "add 20 22"]
    assert worker.process.poll() is None


def test_a_retry_is_kept_while_redis_is_away(durable: tuple[DeliveryStage, RedisServer]) -> None:
    delivery, redis = durable
    delivery.worker()
    result = delivery.send("flaky", 1, 0.5, 3.0)
    wait_until(lambda: delivery.runs() == ["flaky 0"], what="its run")
    redis.stop()
    time.sleep(4)
    redis.start()
    assert result.get(timeout=20) == "after 1"
    assert delivery.runs() == ["flaky 0", "flaky 1"]


def test_connections_cut_during_a_task_neither_repeat_nor_lose_it(delivery: DeliveryStage) -> None:
    delivery.worker()
    result = delivery.send("note", "once", 3.0)
    wait_until(lambda: delivery.runs() == ["once"], what="its run")
    with delivery.stage.redis.connect() as redis:
        for _ in range(3):
            for connection in redis.client_list():
                if int(connection["id"]) != redis.client_id():
                    redis.client_kill_filter(_id=connection["id"])
            time.sleep(0.5)
    assert result.get(timeout=20) == "once"
    assert delivery.runs() == ["once"]
    assert delivery.send("add", 1, 1).get(timeout=20) == 2
    wait_until(lambda: delivery.held() == 0, what="its commit")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_task_is_given_back_after_its_connection_is_gone(
    delivery: DeliveryStage, pool: str
) -> None:
    """Celery rejects through the channel that brought the message, which is closed by then."""
    worker = delivery.worker(CELERY_POOL=pool, CELERY_CONCURRENCY="2")
    kills = pool == "prefork"
    result = delivery.send("note", "word", 5.0) if kills else delivery.send("reject", "word", 5.0)
    wait_until(lambda: delivery.runs() == ["word"], what="its run")
    children = psutil.Process(worker.process.pid).children()
    with delivery.stage.redis.connect() as redis:
        waiting = _connections_that_wait(redis)
        for connection in redis.client_list():
            if int(connection["id"]) != redis.client_id():
                redis.client_kill_filter(_id=connection["id"])
        wait_until(lambda: _connections_that_wait(redis) - waiting, what="its new connection")
    if kills:
        for child in children:
            child.kill()
    assert result.get(timeout=20) == ("word" if kills else True)
    assert delivery.runs() == ["word", "word"]
    assert worker.process.poll() is None
    wait_until(lambda: delivery.held() == 0, what="its end")


def test_the_death_of_a_pool_process_is_noticed_at_once_on_a_busy_machine(
    delivery: DeliveryStage,
) -> None:
    """Its pipe closes before it can be waited for, the longer the busier the machine is."""
    worker = delivery.worker()
    burners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        with delivery.stage.redis.connect() as redis:
            for number in range(5):
                result = delivery.send("note", number, 1.0)
                wait_until(lambda: len(delivery.runs()) == 2 * number + 1, what="its run")  # noqa: B023
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


def _freeze(delivery: DeliveryStage, redis: RedisServer) -> None:
    """Stop Redis from answering; all but the connections on which workers wait are closed."""
    with delivery.stage.redis.connect() as client:
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
    delivery, redis = durable
    worker = delivery.worker()
    result = delivery.send("hard") if end == "limited" else delivery.send("note", "word", 6.0)
    wait_until(lambda: len(delivery.runs()) == 1, what="its run")
    child = psutil.Process(worker.process.pid).children()[0]
    if how == "frozen":
        _freeze(delivery, redis)
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
        wait_until(lambda: len(delivery.runs()) == 2, what="its second run")
        with redis.connect() as client:
            (deaths,) = client.scan_iter("swarm:deaths:*")
            assert client.llen(deaths) == 1
        assert result.get(timeout=15) == "word"
    else:
        with pytest.raises(Exception, match="TimeLimitExceeded"):
            result.get(timeout=10)
    wait_until(lambda: delivery.held() == 0, what="its end")
    assert delivery.runs() == (["word"] * 2 if end == "killed" else ["hard"])
    assert "Couldn't reject" not in worker.log
    assert delivery.send("add", 1, 1).get(timeout=15) == 2


def test_a_worker_that_was_given_up_commits_nothing(delivery: DeliveryStage) -> None:
    first = delivery.worker(1, INVOCATION_ID="first")
    result = delivery.send("note", "word", 3.0)
    wait_until(lambda: delivery.runs() == ["word"], what="its run")
    family = [psutil.Process(first.process.pid)]
    family += family[0].children(recursive=True)
    for process in family:
        process.suspend()
    delivery.give_back("first")
    delivery.worker(2)
    assert result.get(timeout=20) == "word"
    with delivery.stage.redis.connect() as redis:
        redis.delete(f"celery-task-meta-{result.id}")
        for process in family:
            process.resume()
        wait_until(lambda: "came too late" in first.log, what="the late end")
        assert redis.get(f"celery-task-meta-{result.id}") is None
    assert delivery.runs() == ["word", "word"]


# -- producers


@pytest.mark.parametrize("how", ["closed", "frozen", "frozen in use"])
def test_plain_celery_calls_fail_soon_when_the_broker_is_away(stage: Stage, how: str) -> None:
    with RedisServer(stage.directory) as redis:
        stage.redis = redis
        delivery = DeliveryStage(stage)
        if how == "frozen in use":
            delivery.send("note", "before")
        if how == "closed":
            redis.stop()
        else:
            assert redis.process is not None
            os.kill(redis.process.pid, signal.SIGSTOP)
        for _ in range(2):
            started_at = time.monotonic()
            with pytest.raises(OperationalError):
                delivery.send("note", "never")
            assert time.monotonic() - started_at < 3
        delivery.app.close()


def test_a_broker_that_restarted_takes_the_next_task(stage: Stage) -> None:
    with RedisServer(stage.directory) as redis:
        stage.redis = redis
        delivery = DeliveryStage(stage)
        delivery.send("note", "before")
        redis.stop()
        redis.start()
        delivery.send("note", "after")
        assert delivery.waiting() == 1
        delivery.app.close()

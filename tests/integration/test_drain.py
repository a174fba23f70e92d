"""Instances that are drained and undrained: in every kind of pool, at every moment."""

from __future__ import annotations

import json
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.delivery_stage import DeliveryStage
from tests.integration.stage import Stage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import RedisServer, wait_until

POOLS = [
    {"CELERY_POOL": "prefork", "CELERY_CONCURRENCY": "2"},
    {"CELERY_POOL": "threads", "CELERY_CONCURRENCY": "2"},
    {"CELERY_POOL": "solo", "CELERY_CONCURRENCY": "1"},
    {"CELERY_AUTOSCALE": "2,1"},
]
every_pool = pytest.mark.parametrize("pool", POOLS, ids=["prefork", "threads", "solo", "autoscale"])


@pytest.fixture
def delivery(stage: Stage) -> Iterator[DeliveryStage]:
    delivery = DeliveryStage(stage)
    yield delivery
    delivery.app.close()


def tell(worker: WorkerProcess, verb: str, **fields: Any) -> dict[str, Any]:
    """One request on a connection of its own."""
    path = worker.status_path.parents[1] / "control" / f"{worker.status_path.stem}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        request = {"version": 1, "id": verb, "verb": verb, **fields}
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as replies:
            reply: dict[str, Any] = json.loads(replies.readline())
    assert reply["ok"], reply
    assert reply["pid"] == worker.process.pid
    return reply


def wait_drained(worker: WorkerProcess, *, timeout_s: float = 20) -> int:
    """The number under which it is idle."""
    wait_until(
        lambda: tell(worker, "state")["state"] == "idle", timeout_s=timeout_s, what="the last task"
    )
    return int(tell(worker, "state")["sequence"])


def begin(delivery: DeliveryStage, word: str, seconds: float) -> Any:
    result = delivery.send("note", word, seconds)
    wait_until(lambda: word in delivery.runs(), what=f"the begin of {word}")
    return result


@every_pool
def test_what_runs_is_done_and_nothing_else_is_begun_until_the_cancellation(
    delivery: DeliveryStage, pool: dict[str, str]
) -> None:
    worker = delivery.worker(1, **pool)
    running = begin(delivery, "running", 2)
    told = tell(worker, "drain")
    assert (told["state"], told["sequence"]) == ("stopping", 2)
    waiting = [delivery.send("note", f"waiting {n}") for n in range(3)]
    assert running.get(timeout=10) == "running"
    sequence = wait_drained(worker)
    # Longer than any loop takes to turn.
    time.sleep(1.5)
    assert delivery.runs() == ["running"]
    assert (delivery.waiting(), delivery.held()) == (3, 0)
    assert tell(worker, "state")["sequence"] == sequence
    assert tell(worker, "drain")["sequence"] == sequence
    assert tell(worker, "undrain")["state"] == "consuming"
    assert [result.get(timeout=10) for result in waiting] == [f"waiting {n}" for n in range(3)]
    assert worker.log.count("drain: takes no more tasks") == 1
    assert worker.log.count("drained: holds no task") == 1
    assert worker.log.count("drain cancelled: takes tasks again") == 1


@every_pool
def test_an_idle_instance_is_drained_at_once_though_it_waits_at_the_bell(
    delivery: DeliveryStage, pool: dict[str, str]
) -> None:
    worker = delivery.worker(1, **pool)
    wait_until(lambda: blocked(delivery) == 1, what="the wait at the bell")
    assert tell(worker, "drain")["state"] == "idle"
    task = delivery.send("note", "after it")
    time.sleep(1.5)
    assert (delivery.runs(), delivery.waiting()) == ([], 1)
    tell(worker, "undrain")
    assert task.get(timeout=10) == "after it"


def test_what_was_announced_to_a_drained_worker_is_for_another(delivery: DeliveryStage) -> None:
    """It waits at the bell, and the broker gives the ring to who has waited longest."""
    first = delivery.worker(1)
    wait_until(lambda: blocked(delivery) == 1, what="the first one's wait")
    second = delivery.worker(2)
    wait_until(lambda: blocked(delivery) == 2, what="the second one's wait")
    tell(first, "drain")
    for n in range(3):
        assert delivery.send("note", n).get(timeout=5) == n
    wait_until(lambda: second.status()["done"] == 3, timeout_s=3, what="the count")
    assert tell(first, "state") == {**tell(first, "drain"), "id": "state"}
    assert first.status()["done"] == 0


@every_pool
def test_undrained_it_takes_at_once(delivery: DeliveryStage, pool: dict[str, str]) -> None:
    worker = delivery.worker(1, **pool)
    took_s = []
    for n in range(3):
        wait_until(lambda: blocked(delivery) == 1, what="the wait at the bell")
        tell(worker, "drain")
        task = delivery.send("note", n)
        wait_until(lambda: blocked(delivery) == 0, what="the ring")
        started_at = time.monotonic()
        tell(worker, "undrain")
        assert task.get(timeout=10) == n
        took_s.append(time.monotonic() - started_at)
    # Its loop has just turned, and would not turn again before a second has passed.
    assert min(took_s) < 0.5, took_s


def blocked(delivery: DeliveryStage) -> int:
    with delivery.stage.redis.connect() as redis:
        return int(redis.info("clients")["blocked_clients"])


@every_pool
def test_what_is_being_taken_as_the_drain_begins_is_done_and_reported(
    delivery: DeliveryStage, pool: dict[str, str]
) -> None:
    worker = delivery.worker(1, **pool)
    tell(worker, "drain")
    task = delivery.send("note", "slipped in", 2)
    later = delivery.send("note", "later")
    with delivery.stage.redis.connect() as redis:
        wait_until(lambda: redis.info("clients")["blocked_clients"] == 0, what="the ring passed on")
        # From now on the broker does nothing that writes, until it is told or 10 s are over.
        redis.client_pause(10_000, all=False)
        tell(worker, "undrain")
        wait_until(
            lambda: any(
                client["cmd"] == "evalsha" and "b" in client["flags"]
                for client in redis.client_list()
            ),
            timeout_s=8,
            what="the question for messages",
        )
        told = tell(worker, "drain")
        assert (told["state"], delivery.runs()) == ("stopping", []), "the broker has been asked"
        redis.client_unpause()
    wait_until(delivery.runs, timeout_s=5, what="what was taken")
    assert tell(worker, "state") == {**told, "id": "state"}
    wait_drained(worker)
    assert task.get(timeout=5) == "slipped in"
    # One of several processes may have taken the other one too.
    begun = delivery.runs()
    assert len(begun) + delivery.waiting() == 2
    assert Counter(begun) == dict.fromkeys(["slipped in", "later"][: len(begun)], 1)
    tell(worker, "undrain")
    assert later.get(timeout=5) == "later"


@every_pool
def test_a_drained_instance_stops_quickly_and_has_nothing_to_give_back(
    delivery: DeliveryStage, pool: dict[str, str]
) -> None:
    worker = delivery.worker(1, INVOCATION_ID="first", **pool)
    task = begin(delivery, "last", 1)
    waiting = delivery.send("note", "waiting")
    tell(worker, "drain")
    wait_drained(worker)
    assert delivery.held() == 0
    started_at = time.monotonic()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.wait_exit() == 0, worker.log
    assert time.monotonic() - started_at < 5
    assert "returned" not in delivery.give_back("first", ended="success").stderr
    assert task.get(timeout=5) == "last"
    delivery.worker(2)
    assert waiting.get(timeout=10) == "waiting"
    assert Counter(delivery.runs()) == {"last": 1, "waiting": 1}


def test_one_that_shuts_down_with_a_task_does_not_say_that_it_goes_on(
    delivery: DeliveryStage,
) -> None:
    worker = delivery.worker()
    task = begin(delivery, "last", 2)
    tell(worker, "drain")
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "STOPPING=1" in worker.notify.told, what="STOPPING=1")
    with pytest.raises(AssertionError, match="will not consume again"):
        tell(worker, "undrain")
    assert worker.wait_exit() == 0
    assert task.get(timeout=5) == "last"


def test_the_status_file_and_the_metrics_tell_of_it(delivery: DeliveryStage) -> None:
    worker = delivery.worker()
    assert "drain" not in worker.status()
    task = begin(delivery, "running", 2)
    tell(worker, "drain")
    wait_until(
        lambda: worker.status().get("drain", {}).get("state") == "stopping",
        timeout_s=3,
        what="stopping in the status file",
    )
    # File and metrics are written in one report, the one after the other.
    wait_until(
        lambda: "swarm_worker_draining 1.0" in worker.metrics(), timeout_s=3, what="the metric"
    )
    task.get(timeout=5)
    sequence = wait_drained(worker)
    wait_until(
        lambda: worker.status()["drain"]["state"] == "idle", timeout_s=3, what="idle in the file"
    )
    assert worker.status()["drain"]["sequence"] == sequence
    line = "STATUS=analysis: drained, 0 busy of 1, 1 done, redis primary"
    wait_until(lambda: line in worker.notify.told, timeout_s=3, what="STATUS of it")
    tell(worker, "undrain")
    wait_until(lambda: "drain" not in worker.status(), timeout_s=3, what="its end in the file")


def test_a_drain_that_nobody_renews_ends_by_itself(delivery: DeliveryStage) -> None:
    worker = delivery.worker()
    before = tell(worker, "drain", for_s=2)["sequence"]
    task = delivery.send("note", "waiting")
    time.sleep(1)
    tell(worker, "drain", for_s=2)
    time.sleep(1.5)
    assert delivery.runs() == [], "it was renewed"
    assert task.get(timeout=3) == "waiting"
    assert tell(worker, "state")["sequence"] == before + 1
    assert "nobody renewed it" in worker.log


@pytest.fixture
def own_redis(stage: Stage) -> Iterator[RedisServer]:
    """A Redis that a test may stop, and that keeps what it has."""
    directory = stage.directory / "redis"
    directory.mkdir()
    with RedisServer(directory, options=("--appendonly", "yes")) as server:
        stage.redis = server
        yield server


@every_pool
def test_it_stays_drained_while_the_broker_is_away_and_after_it_came_back(
    stage: Stage, own_redis: RedisServer, pool: dict[str, str]
) -> None:
    delivery = DeliveryStage(stage)
    worker = delivery.worker(1, **pool)
    tell(worker, "drain")
    own_redis.stop()
    wait_until(lambda: worker.status()["broker"] == "down", what="broker down")
    assert tell(worker, "state")["state"] == "idle"
    tell(worker, "undrain")
    assert tell(worker, "drain")["state"] == "idle", "nothing can come, and nothing is held"
    own_redis.start()
    wait_until(lambda: worker.status()["broker"] == "ok", timeout_s=30, what="broker back")
    task = delivery.send("note", "later")
    time.sleep(1.5)
    assert (delivery.runs(), delivery.waiting()) == ([], 1)
    tell(worker, "undrain")
    assert task.get(timeout=5) == "later"
    delivery.app.close()


def test_a_task_that_ends_while_the_broker_is_away_is_held_until_then(
    stage: Stage, own_redis: RedisServer
) -> None:
    delivery = DeliveryStage(stage)
    worker = delivery.worker()
    begin(delivery, "running", 2)
    own_redis.stop()
    assert tell(worker, "drain")["state"] == "stopping"
    wait_drained(worker)
    assert delivery.runs() == ["running"]
    assert len(list((stage.directory / "spool").rglob("*.*"))) > 0, "its end is on the disk"
    own_redis.start()
    wait_until(lambda: delivery.held() == 0, timeout_s=40, what="its end told to the broker")
    delivery.app.close()


@every_pool
def test_two_hundred_drains_under_load_interrupt_and_repeat_nothing(
    delivery: DeliveryStage, pool: dict[str, str]
) -> None:
    worker = delivery.worker(1, **pool)
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    words = [f"task {n}" for n in range(300)]
    results = [delivery.send("note", word, chance.choice([0, 0.005, 0.02])) for word in words]
    idle: dict[int, set[int]] = {}
    last = 0
    for _ in range(200):
        verb = "drain"
        while verb == "drain":
            told = tell(worker, verb)
            assert told["sequence"] >= last, f"seed {seed}"
            last = told["sequence"]
            if told["state"] == "idle":
                # Whoever says so has begun nothing since it said it first.
                idle.setdefault(last, set()).add(len(delivery.runs()))
                verb = chance.choice(["drain", "undrain"])
            elif chance.random() < 0.3:
                verb = "undrain"
            time.sleep(chance.choice([0, 0, 0.002, 0.01]))
        assert tell(worker, "undrain")["state"] == "consuming"
        last += 1
        time.sleep(chance.choice([0, 0.002, 0.01, 0.03]))
    assert [result.get(timeout=60) for result in results] == words, f"seed {seed}"
    assert Counter(delivery.runs()) == dict.fromkeys(words, 1), f"seed {seed}"
    assert all(len(begun) == 1 for begun in idle.values()), (seed, idle)
    assert len(idle) > 20, "it was seen idle often enough to have been caught lying"
    delivery.wait_idle()
    wait_until(lambda: worker.status()["done"] == 300, timeout_s=3, what="the count")
    assert worker.status()["failed"] == 0

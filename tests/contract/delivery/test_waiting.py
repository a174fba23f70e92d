"""Waiting for a result over a real Redis: whose answer it is, and what stays behind."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.exceptions import TimeoutError as CeleryTimeoutError

from tests.contract.delivery.messages import commit, taken
from tests.loopback import RedisServer, wait_until

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def app(server: RedisServer, client: redis.Redis) -> Iterator[Celery]:
    backend = f"swarm.delivery.results:ResultBackend+{server.url}"
    with Celery("waiting", backend=backend, broker="memory://", set_as_current=False) as app:
        yield app


def end(client: redis.Redis, task_id: str) -> None:
    """Commit a task with its id as its result."""
    outcome = taken(client, task_id)
    key = f"celery-task-meta-{task_id}"
    value = (
        f'{{"status": "SUCCESS", "result": "{task_id}", "traceback": null, "children": [], '
        f'"task_id": "{task_id}"}}'
    )
    outcome.store(key, value, 60)
    outcome.answer(key, value)
    assert commit(client, outcome) == "committed"


def ends_once_awaited(client: redis.Redis, task_id: str) -> threading.Thread:
    def await_and_end() -> None:
        wait_until(lambda: client.exists(f"swarm:waiting:celery-task-meta-{task_id}"))
        end(client, task_id)

    thread = threading.Thread(target=await_and_end)
    thread.start()
    return thread


def give_up(app: Celery, task_id: str, timeout_s: float = 0.05) -> None:
    with pytest.raises(CeleryTimeoutError):
        app.AsyncResult(task_id).get(timeout=timeout_s)


def mailboxes(client: redis.Redis) -> list[bytes]:
    return list(client.scan_iter("swarm:mailbox:*"))


def test_a_process_and_its_fork_get_each_its_own_answer(app: Celery, client: redis.Redis) -> None:
    give_up(app, "none")
    answers: Any = FORK.SimpleQueue()
    child = FORK.Process(
        target=lambda: answers.put(app.AsyncResult("childs").get(timeout=5)), daemon=True
    )
    child.start()
    wait_until(lambda: client.exists("swarm:waiting:celery-task-meta-childs"), what="the child")
    ending = ends_once_awaited(client, "parents")
    assert app.AsyncResult("parents").get(timeout=5) == "parents"
    ending.join()
    end(client, "childs")
    child.join(10)
    assert child.exitcode == 0
    assert answers.get() == "childs"


def test_a_connection_that_was_closed_at_rest_is_replaced(app: Celery, client: redis.Redis) -> None:
    give_up(app, "none")
    client.client_kill_filter(_type="normal", skipme=True)
    ending = ends_once_awaited(client, "task")
    assert app.AsyncResult("task").get(timeout=5) == "task"
    ending.join()


def test_a_second_wait_needs_no_second_connection_and_no_more_commands(
    app: Celery, client: redis.Redis
) -> None:
    def wait_and_count() -> tuple[int, int]:
        give_up(app, "none")
        stats: Any = client.info("stats")
        calls: Any = client.info("commandstats")
        count = sum(calls.get(f"cmdstat_{name}", {}).get("calls", 0) for name in COMMANDS)
        return int(stats["total_connections_received"]), int(count)

    wait_and_count()
    first, second = wait_and_count(), wait_and_count()
    assert second == (first[0], first[1] + 2)


#: What may go over the wire while somebody waits.
COMMANDS = ("ping", "hello", "auth", "select", "client|setinfo", "evalsha", "eval", "blpop")


def test_who_only_asks_leaves_no_address(app: Celery, client: redis.Redis) -> None:
    give_up(app, "task", timeout_s=0)
    assert client.exists("swarm:waiting:celery-task-meta-task") == 0
    end(client, "task")
    assert mailboxes(client) == []
    assert app.AsyncResult("task").get(timeout=0) == "task"


def test_answers_to_waits_that_were_given_up_expire_however_many_follow(
    app: Celery, client: redis.Redis
) -> None:
    for task_id in ("first", "second"):
        give_up(app, task_id)
    end(client, "first")
    (mailbox,) = mailboxes(client)
    assert client.ttl(mailbox) > 0
    client.expire(mailbox, 10)
    end(client, "second")
    assert client.llen(mailbox) == 2
    assert client.ttl(mailbox) <= 10
    # Who waits again passes them over.
    ending = ends_once_awaited(client, "third")
    assert app.AsyncResult("third").get(timeout=5) == "third"
    ending.join()
    assert mailboxes(client) == []


def test_a_callback_for_each_interval_is_called(app: Celery, client: redis.Redis) -> None:
    called_at: list[float] = []
    started_at = time.monotonic()
    give_up_with(app, lambda: called_at.append(time.monotonic() - started_at))
    # Celery calls it once, after a second.
    assert len(called_at) == 1
    assert 0.9 < called_at[0] < 1.3


def give_up_with(app: Celery, on_interval: Callable[[], object]) -> None:
    with pytest.raises(CeleryTimeoutError):
        app.AsyncResult("none").get(timeout=1.5, on_interval=on_interval)


def test_an_error_of_the_callback_ends_the_wait(app: Celery, client: redis.Redis) -> None:
    def complain() -> None:
        raise LookupError("enough")

    started_at = time.monotonic()
    with pytest.raises(LookupError, match="enough"):
        app.AsyncResult("none").get(timeout=30, on_interval=complain)
    assert time.monotonic() - started_at < 5

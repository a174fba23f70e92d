"""The scripts over a real Redis that refuses them half-way: nobody loses a message."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from swarm.delivery import keys, scripts
from swarm.delivery.dead import DeadLetters
from swarm.delivery.release import release
from tests.contract.delivery.messages import (
    ME,
    commit,
    due_in,
    held,
    let_pass,
    message,
    publish,
    take,
    taken,
    waiting,
)
from tests.loopback import RedisServer

As = Callable[..., redis.Redis]


@pytest.fixture
def limited(server: RedisServer, client: redis.Redis) -> Iterator[As]:
    """A client that may do everything but on keys that are not named."""
    opened = []

    def make(*allowed: str) -> redis.Redis:
        client.acl_setuser(
            "limited", enabled=True, passwords=["+p"], commands=["+@all"], keys=allowed, reset=True
        )
        opened.append(redis.Redis(port=server.port, username="limited", password="p"))
        return opened[-1]

    yield make
    for each in opened:
        each.close()
    client.acl_deluser("limited")


def test_a_commit_that_may_not_publish_a_successor_leaves_its_task_held(
    client: redis.Redis, limited: As
) -> None:
    outcome = taken(client)
    outcome.store("celery-task-meta-task", "done", 60)
    outcome.effects += ["enqueue", "elsewhere", message("child"), ""]
    with pytest.raises(redis.ResponseError, match="can't access"):
        commit(limited("swarm:*", "celery-task-meta-*", "q"), outcome)
    assert held(client) == [outcome.tag]
    assert client.exists("swarm:done:task") == 0
    assert commit(client, outcome) == "committed"


def test_a_dead_letter_that_may_not_be_told_of_stays_held(client: redis.Redis, limited: As) -> None:
    outcome = taken(client)
    with pytest.raises(redis.ResponseError, match="can't access"):
        release(limited("swarm:*", "q"), ME, "dead", "rejected", choice="all")
    assert held(client) == [outcome.tag]


def test_what_may_not_be_returned_stays_held(client: redis.Redis, limited: As) -> None:
    outcome = taken(client)
    with pytest.raises(redis.ResponseError, match="can't access"):
        release(limited("swarm:*"), ME, "return", "stopped", choice="all")
    assert held(client) == [outcome.tag]


def test_what_may_not_be_held_stays_in_its_queue(client: redis.Redis, limited: As) -> None:
    tag = publish(client)
    with pytest.raises(redis.ResponseError, match="can't access"):
        take(limited("q*", "swarm:bell:*", "swarm:scheduled:*", "swarm:holders"))
    assert waiting(client) == [tag]
    assert client.exists(keys.held(ME)) == 0


def test_what_is_due_and_may_not_be_held_stays_in_the_schedule(
    client: redis.Redis, limited: As
) -> None:
    tag = publish(client, due=due_in(60))
    let_pass(client, 60)
    with pytest.raises(redis.ResponseError, match="can't access"):
        take(limited("q*", "swarm:bell:*", "swarm:scheduled:*", "swarm:holders"))
    assert take(client)[2] == [tag]


def test_a_letter_that_may_not_be_replayed_stays_one(client: redis.Redis, limited: As) -> None:
    outcome = taken(client)
    release(client, ME, "dead", "rejected", choice="all")
    with pytest.raises(redis.ResponseError, match="can't access"):
        scripts.REPLAY.run(limited("swarm:*", "celery-task-meta-*"), outcome.tag)
    assert [letter.tag for letter in DeadLetters(client).all()] == [outcome.tag]


def test_a_task_that_may_not_be_queued_claims_no_idempotency_key(
    client: redis.Redis, limited: As
) -> None:
    with pytest.raises(redis.ResponseError, match="can't access"):
        publish(limited("swarm:*"), key="once", task_id="first")
    tag = publish(client, key="once", task_id="second")
    assert waiting(client) == [tag]

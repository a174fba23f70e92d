"""The scripts over a real Redis: how a message comes to its holder."""

from __future__ import annotations

import json

import pytest
import redis
from redis.exceptions import OutOfMemoryError

from swarm.delivery import keys, scripts
from swarm.delivery.release import release
from tests.contract.delivery.messages import (
    ME,
    OTHER,
    SEPARATOR,
    commit,
    held,
    is_rung,
    publish,
    take,
    taken,
    waiting,
)


def test_a_taken_message_lies_in_its_holders_list_and_nowhere_else(client: redis.Redis) -> None:
    tag = publish(client)
    assert take(client) == (False, -1, [tag])
    assert held(client) == [tag]
    assert waiting(client) == []
    assert take(client, holder=OTHER) == (False, -1, [])


def test_messages_are_taken_in_the_order_in_which_they_came(client: redis.Redis) -> None:
    tags = [publish(client) for _ in range(5)]
    assert take(client, most=3) == (True, -1, tags[:3])
    assert take(client, most=3) == (False, -1, tags[3:])


def test_lists_are_emptied_in_the_order_given(client: redis.Redis) -> None:
    low = publish(client, f"q{SEPARATOR}9")
    second = publish(client, "second")
    first = publish(client, "q")
    assert take(client, "q", "second", most=9)[2] == [first, second, low]


def test_publishing_rings_and_an_emptied_queue_is_silent(client: redis.Redis) -> None:
    publish(client)
    publish(client)
    assert client.llen(keys.bell("q")) == 1
    client.blpop([keys.bell("q")], timeout=1)
    assert take(client)[0] is True
    assert is_rung(client), "another waits, and somebody else may be idle"
    take(client)
    assert not is_rung(client)


def test_publishing_again_with_the_same_tag_changes_nothing(client: redis.Redis) -> None:
    tag = publish(client)
    publish(client, tag=tag)
    assert waiting(client) == [tag]
    take(client)
    publish(client, tag=tag)
    assert waiting(client) == []


def test_an_idempotency_key_belongs_to_the_first_task(client: redis.Redis) -> None:
    publish(client, key="order-7", task_id="first")
    assert publish(client, key="order-7", task_id="second") == "first"
    assert len(waiting(client)) == 1


def test_a_repeated_publish_keeps_its_own_idempotency_key(client: redis.Redis) -> None:
    tag = publish(client, key="order-7", task_id="first")
    assert publish(client, key="order-7", task_id="first", tag=tag) == tag
    assert waiting(client) == [tag]


def test_a_message_that_comes_again_says_so(client: redis.Redis) -> None:
    publish(client)
    for expected in (None, True, True):
        *_, raw, _ = scripts.TAKE.run(client, ME, 1, "0", "q", "q")
        assert json.loads(raw)["properties"].get("redelivered") is expected
        release(client, ME, "return", "again", choice="all")


def test_a_take_tells_what_is_revoked(client: redis.Redis) -> None:
    for task_id in ("wanted", "unwanted"):
        publish(client, task_id=task_id)
    client.set(keys.revoked("unwanted"), "1")
    *_, first, _, _, second = scripts.TAKE.run(client, ME, 2, "0", "q", "q")
    assert (first, second) == (0, 1)


def test_a_full_broker_refuses_work_and_lets_it_be_drained(client: redis.Redis) -> None:
    outcome = taken(client, "first")
    second = publish(client)
    publish(client)
    client.config_set("maxmemory", 1)
    with pytest.raises(OutOfMemoryError):
        publish(client)
    assert len(waiting(client)) == 2, "refused whole"
    outcome.store("celery-task-meta-first", "{}", 60)
    assert commit(client, outcome) == "committed"
    assert client.blpop([keys.bell("q")], timeout=1)
    assert take(client)[2] == [second]
    assert release(client, ME, "return", "test", choice="all") == (1, 0)

"""A metered broker: producers tell what they ask of it, and are sent away while a rest is kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from swarm.brokers import Broker, classify, counting
from swarm.delivery import keys
from swarm.delivery.outcome import Outcome, Successor
from swarm.delivery.publish import RefusedError, publish, try_out
from swarm.delivery.waiting import Mailbox
from tests.contract.delivery.messages import commit, held, message, take, waiting
from tests.contract.delivery.messages import publish as publish_raw
from tests.loopback import RedisServer

CLOSED = "the rest of the budget is for what is queued, until 2026-12-01"


def successor(tag: str) -> Successor:
    return Successor("q", message("task", tag), "", "task")


@pytest.fixture
def metered(server: RedisServer, client: redis.Redis) -> Iterator[redis.Redis]:
    counting.tell(Broker("primary", server.url))
    counting.requests.forget()
    yield client
    counting._told_places.clear()


def used(client: redis.Redis) -> int:
    return int(client.get(keys.USAGE) or 0)


def test_a_publication_brings_what_its_producer_has_asked_before(metered: redis.Redis) -> None:
    metered.ping()
    metered.ping()
    publish(metered, successor("a"), tag="a")
    told = used(metered)
    # The script was unknown at first: that is one more.
    assert told >= 2
    publish(metered, successor("b"), tag="b")
    assert used(metered) - told >= 1
    place = ("127.0.0.1", metered.connection_pool.connection_kwargs["port"])
    total = counting.requests.total(place)
    publish(metered, successor("c"), tag="c")
    assert used(metered) == total


def test_so_does_a_wait_for_a_result(metered: redis.Redis) -> None:
    metered.ping()
    assert Mailbox(metered.connection_pool).wait(metered, "none", 0) is None
    assert used(metered) >= 1


def test_what_could_not_be_told_is_told_later(metered: redis.Redis) -> None:
    metered.set(keys.CLOSED, CLOSED)
    with pytest.raises(RefusedError):
        publish(metered, successor("a"), tag="a")
    assert used(metered) == 0
    metered.delete(keys.CLOSED)
    publish(metered, successor("b"), tag="b")
    assert used(metered) >= 4


def test_a_broker_that_is_not_metered_is_told_nothing(client: redis.Redis) -> None:
    client.ping()
    publish(client, successor("a"), tag="a")
    assert client.exists(keys.USAGE) == 0


def test_a_closed_broker_takes_no_task_and_says_why(client: redis.Redis) -> None:
    publish(client, successor("before"), tag="before")
    client.set(keys.CLOSED, CLOSED)
    with pytest.raises(RefusedError, match=CLOSED) as caught:
        publish(client, successor("late"), tag="late", idempotency_key="once")
    assert classify(caught.value).state == "limited"
    assert waiting(client) == ["before"]
    # The claim was not made either: elsewhere the task is a new one.
    assert client.exists("swarm:claim:once") == 0
    client.delete(keys.CLOSED)
    publish(client, successor("late"), tag="late", idempotency_key="once")
    assert waiting(client) == ["before", "late"]


def test_what_it_has_is_done_all_the_same_with_all_that_follows(client: redis.Redis) -> None:
    tag = publish_raw(client)
    client.set(keys.CLOSED, CLOSED)
    assert take(client)[2] == [tag]
    outcome = Outcome(tag, "task")
    outcome.enqueue(Successor("q", message("next", "next"), "", "next"))
    assert commit(client, outcome) == "committed"
    assert held(client) == []
    assert waiting(client) == ["next"]


def test_a_trial_meets_what_a_task_would_and_leaves_nothing(client: redis.Redis) -> None:
    try_out(client)
    assert waiting(client) == []
    client.set(keys.CLOSED, CLOSED)
    with pytest.raises(redis.ResponseError, match=CLOSED) as caught:
        try_out(client)
    assert classify(caught.value).state == "limited"
    client.delete(keys.CLOSED)
    client.config_set("maxmemory", 1)
    with pytest.raises(redis.exceptions.OutOfMemoryError) as full:
        try_out(client)
    assert classify(full.value).state == "limited"

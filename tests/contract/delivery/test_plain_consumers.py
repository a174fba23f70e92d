"""Our transport over a real Redis, for consumers that are no workers: nobody commits there."""

from __future__ import annotations

import contextlib
import time

import kombu
import pytest
import redis

from swarm.delivery import keys
from tests.contract.delivery.messages import due_in, is_rung, publish, waiting


def all_held(client: redis.Redis) -> list[bytes]:
    return list(client.scan_iter(keys.held("*")))


def test_an_acknowledgement_ends_a_message_where_nobody_commits(
    client: redis.Redis, plain_connection: kombu.Connection
) -> None:
    queue = plain_connection.SimpleQueue("plain")
    queue.put({"a": 1})
    message = queue.get(timeout=5)
    assert (message.payload, len(all_held(client))) == ({"a": 1}, 1)
    message.ack()
    assert all_held(client) == []
    queue.close()
    assert client.llen("plain") == 0


def test_a_closed_channel_returns_what_was_not_acknowledged(
    client: redis.Redis, plain_connection: kombu.Connection
) -> None:
    queue = plain_connection.SimpleQueue("plain")
    queue.put({"a": 1})
    queue.get(timeout=5)
    plain_connection.close()
    assert (client.llen("plain"), all_held(client)) == (1, [])


@pytest.mark.parametrize("how", ["consume", "get"])
def test_who_needs_no_acknowledgement_leaves_nothing_behind(
    client: redis.Redis, plain_connection: kombu.Connection, how: str
) -> None:
    queue = plain_connection.SimpleQueue("plain", no_ack=True)
    queue.put({"a": 1})
    if how == "consume":
        assert queue.get(timeout=5).payload == {"a": 1}
    else:
        channel = plain_connection.channel()
        assert channel.basic_get("plain", no_ack=True).decode() == {"a": 1}
    assert (client.llen("plain"), all_held(client)) == (0, [])


def test_who_is_full_once_a_ring_woke_it_leaves_the_schedule_to_somebody(
    client: redis.Redis, plain_connection: kombu.Connection
) -> None:
    plain_connection.transport.wait_s = 0.1
    channel = plain_connection.channel()
    channel.basic_qos(0, 1)
    taken: list[kombu.Message] = []
    with kombu.Consumer(channel, [kombu.Queue("plain")], on_message=taken.append):
        with contextlib.suppress(TimeoutError):
            plain_connection.drain_events(timeout=0.05)
        # Its wait for a bell ends, and it is not yet back at the next.
        time.sleep(0.2)
        publish(client, "plain", due=due_in(60))
        publish(client, "plain")
        while not taken:
            with contextlib.suppress(TimeoutError):
                plain_connection.drain_events(timeout=1)
        assert waiting(client, "plain") == []
        assert is_rung(client, "plain"), "there was one ring, and it took that"

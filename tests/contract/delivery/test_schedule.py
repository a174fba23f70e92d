"""The scripts over a real Redis: messages that are due later, and who watches them."""

from __future__ import annotations

import redis

from tests.contract.delivery.messages import (
    OTHER,
    due_in,
    is_rung,
    let_pass,
    publish,
    take,
    waiting,
)


def test_a_scheduled_message_waits_until_it_is_due_and_then_comes_first(
    client: redis.Redis,
) -> None:
    late = publish(client, due=due_in(60))
    assert waiting(client) == []
    assert is_rung(client), "somebody has to watch it"
    more, due_ms, tags = take(client)
    assert (more, tags) == (False, [])
    assert 50_000 < due_ms <= 60_000
    early = publish(client)
    let_pass(client, 60)
    assert take(client, most=2)[2] == [late, early]


def test_due_messages_come_in_the_order_of_their_times(client: redis.Redis) -> None:
    second, first = publish(client, due=due_in(60)), publish(client, due=due_in(30))
    let_pass(client, 60)
    assert take(client, most=2)[2] == [first, second]


def test_a_watcher_that_is_full_hands_the_watch_over(client: redis.Redis) -> None:
    publish(client, due=due_in(60))
    assert take(client)[1] > 0
    assert not is_rung(client)
    publish(client)
    take(client, watches=True)
    assert is_rung(client)
    assert take(client, holder=OTHER)[1] > 0
    assert not is_rung(client)


def test_who_is_full_and_never_watched_leaves_the_bell_alone(client: redis.Redis) -> None:
    publish(client)
    publish(client, due=due_in(60))
    take(client)
    assert is_rung(client), "nobody has looked at the schedule yet"


def test_a_message_in_the_past_is_no_scheduled_one(client: redis.Redis) -> None:
    tag = publish(client, due=due_in(-5))
    assert waiting(client) == [tag]

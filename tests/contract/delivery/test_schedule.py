"""The scripts over a real Redis: messages that are due later, and who watches them."""

from __future__ import annotations

import redis

from swarm.delivery import keys, scripts
from tests.contract.delivery.messages import (
    OTHER,
    SEPARATOR,
    due_in,
    held,
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


def test_due_messages_keep_their_order_however_many_are_overdue(client: redis.Redis) -> None:
    publish(client)
    overdue = [publish(client, due=due_in(number)) for number in range(1, 251)]
    let_pass(client, 300)
    assert [take(client)[2][0] for _ in overdue] == overdue


def test_what_is_due_keeps_its_priority(client: redis.Redis) -> None:
    low = publish(client, f"q{SEPARATOR}9", due=due_in(1))
    waits = publish(client)
    high = publish(client, due=due_in(2))
    let_pass(client, 60)
    assert take(client, most=9) == (False, -1, [high, waits, low])
    assert held(client) == [high, waits, low]


def test_who_leaves_something_due_rings_for_it(client: redis.Redis) -> None:
    tags = [publish(client, f"q{SEPARATOR}9", due=due_in(seconds)) for seconds in (1, 2, 3)]
    let_pass(client, 60)
    client.delete(keys.bell("q"))
    assert take(client) == (True, -1, tags[:1])
    assert is_rung(client)
    assert take(client, most=2) == (False, -1, tags[1:])
    assert not is_rung(client)


def test_a_watcher_looks_again_for_the_next_one_of_any_priority(client: redis.Redis) -> None:
    publish(client, due=due_in(60))
    publish(client, f"q{SEPARATOR}9", due=due_in(30))
    assert 20_000 < take(client)[1] <= 30_000


def test_a_survey_counts_and_rings_for_what_is_due(client: redis.Redis) -> None:
    publish(client, due=due_in(1))
    publish(client, f"q{SEPARATOR}9", due=due_in(2))
    publish(client, due=due_in(120))
    publish(client)
    let_pass(client, 60)
    client.delete(keys.bell("q"))
    now, _, length, due, rung = scripts.SURVEY.run(client, "q")
    assert (length, rung) == (3, 1)
    assert 50_000 < due - now <= 60_000
    # It has moved nothing.
    assert len(waiting(client)) == 1


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

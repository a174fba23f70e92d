"""How long a message waited, by the clock of the broker alone."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from swarm.delivery import scripts
from swarm.delivery.dead import DeadLetters
from swarm.delivery.message import decode, note_wait, waited_s
from swarm.delivery.release import release
from tests.contract.delivery.messages import ME, due_in, let_pass, message, publish, take


def stamp(raw: bytes) -> int:
    stamped: int = json.loads(raw)["properties"]["waits_since"]
    return stamped


def broker_ms(client: redis.Redis) -> int:
    seconds, microseconds = client.time()
    return int(seconds * 1000 + microseconds // 1000)


def take_raw(client: redis.Redis) -> tuple[bytes, int]:
    _, _, now, _, raw, _ = scripts.TAKE.run(client, ME, 1, "0", "q", "q")
    return raw, now


def test_a_message_says_since_when_it_waits(client: redis.Redis) -> None:
    before = broker_ms(client)
    publish(client)
    published = broker_ms(client)
    raw, now = take_raw(client)
    assert before <= stamp(raw) <= published <= now


def test_a_scheduled_message_waits_from_when_it_is_due(client: redis.Redis) -> None:
    due = due_in(30)
    publish(client, due=due)
    let_pass(client, 60)
    assert stamp(take_raw(client)[0]) == int(due)


def test_a_message_that_is_given_back_has_waited_all_along(client: redis.Redis) -> None:
    publish(client)
    first, _ = take_raw(client)
    release(client, ME, "return", "again", choice="all")
    again, _ = take_raw(client)
    assert stamp(again) == stamp(first)


def test_a_replayed_letter_is_stamped_anew_and_once(client: redis.Redis) -> None:
    publish(client, tag="tag")
    first, _ = take_raw(client)
    release(client, ME, "dead", "no", choice="all")
    (letter,) = DeadLetters(client).all()
    DeadLetters(client).replay(letter)
    again, _ = take_raw(client)
    assert stamp(again) >= stamp(first)
    assert again.count(b'"waits_since"') == 1


def test_quoted_text_in_a_body_is_left_alone(client: redis.Redis) -> None:
    text = message("id", "tag", argsrepr='["delivery_tag": "x", "waits_since": 3, ]')
    scripts.PUBLISH.run(client, "tag", "q", text, "", "", 60, "id", 60)
    raw, _ = take_raw(client)
    assert json.loads(raw)["headers"] == json.loads(text)["headers"]
    assert take(client)[2] == []


@pytest.mark.parametrize(
    ("properties", "waited"),
    [
        ({"waits_since": 750}, 0.25),
        ({"waits_since": 1500}, 0.0),
        ({}, None),
        ({"waits_since": "750"}, None),
        ({"waited_s": 7.0}, None),
    ],
)
def test_a_wait_is_known_or_not_and_never_negative(
    properties: dict[str, Any], waited: float | None
) -> None:
    text = json.dumps(
        {"body": "", "headers": {}, "properties": {"delivery_tag": "t", **properties}}
    )
    payload = decode(text.encode())
    note_wait(payload, 1000)
    assert "waits_since" not in payload["properties"]
    assert waited_s(SimpleNamespace(properties=payload["properties"])) == waited

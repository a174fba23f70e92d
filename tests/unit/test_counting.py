"""Requests are counted where they go, and told to nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from swarm.brokers import Broker, counting


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    counting.requests.forget()
    yield
    counting.requests.forget()
    counting._told_places.clear()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://:pw@metered.example", ("metered.example", 6379)),
        ("rediss://:pw@METERED.example:7000/0", ("metered.example", 7000)),
        ("redis://:pw@[fd00::1]", ("fd00::1", 6379)),
    ],
)
def test_a_client_of_the_brokers_url_tells_what_was_asked_there(
    url: str, place: counting.Place
) -> None:
    counting.tell(Broker("primary", url))
    counting.requests.add(place, 3)
    counting.requests.add(("elsewhere.example", 6379), 5)
    with redis.Redis.from_url(url) as client, counting.told(client) as told:
        assert told == 3
    other = redis.Redis.from_url("redis://elsewhere.example")
    with other as client, counting.told(client) as told:
        assert told == 0
    assert counting.requests.take(place) == 0


def test_what_an_error_keeps_from_being_told_is_told_the_next_time() -> None:
    broker = Broker("primary", "redis://metered.example")
    counting.tell(broker)
    counting.requests.add(counting.place_of(broker), 3)
    with redis.Redis.from_url(broker.url) as client:
        with pytest.raises(redis.ConnectionError), counting.told(client):
            raise redis.ConnectionError("lost")
        counting.requests.add(counting.place_of(broker), 1)
        with counting.told(client) as told:
            assert told == 4

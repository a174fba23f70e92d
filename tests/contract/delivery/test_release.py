"""The scripts over a real Redis: how a message comes back, and when at a start."""

from __future__ import annotations

import redis

from swarm.delivery import keys
from swarm.delivery.holder import LEASE_S, HolderName
from swarm.delivery.release import release, resume
from tests.contract.delivery.messages import (
    ME,
    SEPARATOR,
    commit,
    held,
    is_rung,
    publish,
    take,
    taken,
    waiting,
)


def test_everything_goes_back_to_the_head_of_its_queue_in_its_order(client: redis.Redis) -> None:
    tags = [publish(client) for _ in range(3)]
    take(client, most=2)
    assert release(client, ME, "return", "test", choice="all") == (2, 0)
    assert waiting(client) == tags
    assert is_rung(client)
    assert client.hgetall(keys.HOLDERS) == {}


def test_a_message_goes_back_to_the_priority_it_came_from(client: redis.Redis) -> None:
    tag = publish(client, f"q{SEPARATOR}6")
    take(client)
    release(client, ME, "return", "test", choice="all")
    assert waiting(client, f"q{SEPARATOR}6") == [tag]


def test_only_what_is_named_is_released(client: redis.Redis) -> None:
    tags = [publish(client) for _ in range(3)]
    take(client, most=3)
    release(client, ME, "return", "test", choice="only", needles=[tags[1]])
    assert held(client) == [tags[0], tags[2]]
    release(client, ME, "return", "test", choice="except", needles=[tags[0]])
    assert held(client) == [tags[0]]
    assert client.hexists(keys.HOLDERS, ME)


def test_a_holder_with_a_lease_is_not_robbed(client: redis.Redis) -> None:
    tag = publish(client)
    take(client)
    client.set(keys.lease(ME), "1", ex=60)
    assert release(client, ME, "died", "gone", choice="unleased", needles=[tag]) == (0, 0)
    client.delete(keys.lease(ME))
    assert release(client, ME, "died", "gone", choice="unleased", needles=[tag]) == (1, 0)


def test_who_takes_again_what_came_back_has_a_lease_at_once(client: redis.Redis) -> None:
    """To the reaper it is the same message with the same holder."""
    tag = publish(client)
    take(client)
    assert client.exists(keys.lease(ME)) == 0
    release(client, ME, "died", "its process died", choice="only", needles=[tag])
    take(client)
    assert client.ttl(keys.lease(ME)) > LEASE_S - 5


def test_releasing_what_is_not_held_does_nothing(client: redis.Redis) -> None:
    outcome = taken(client)
    commit(client, outcome)
    assert release(client, ME, "return", "late", choice="only", needles=[outcome.tag]) == (0, 0)
    assert waiting(client) == []


def test_a_lost_ring_is_rung_again_when_its_taker_is_released(client: redis.Redis) -> None:
    resume(client, HolderName("host:browser:1:", "a", is_unit=True), ["q"], set())
    publish(client)
    client.blpop([keys.bell("q")], timeout=1)
    assert not is_rung(client)
    release(client, ME, "died", "between bell and queue", choice="all")
    assert is_rung(client)


def test_a_start_returns_what_earlier_runs_of_the_instance_left(client: redis.Redis) -> None:
    tag = publish(client)
    resume(client, HolderName("host:browser:1:", "a", is_unit=True), ["q"], set())
    take(client)
    neighbour = publish(client)
    resume(client, HolderName("host:browser:11:", "a", is_unit=True), ["q"], set())
    take(client, holder="host:browser:11:a")
    assert resume(client, HolderName("host:browser:1:", "z", is_unit=True), ["q"], set()) == (1, 0)
    assert waiting(client) == [tag]
    assert held(client, "host:browser:11:a") == [neighbour]
    assert client.llen(f"swarm:deaths:{tag}") == 1


def test_a_process_that_is_no_unit_has_no_earlier_runs(client: redis.Redis) -> None:
    publish(client)
    resume(client, HolderName("host:browser:1:", "a", is_unit=False), ["q"], set())
    take(client)
    assert resume(client, HolderName("host:browser:1:", "z", is_unit=False), ["q"], set()) == (0, 0)


def test_a_reconnection_returns_what_does_not_run(client: redis.Redis) -> None:
    tags = [publish(client) for _ in range(2)]
    take(client, most=2)
    name = HolderName("host:browser:1:", "a", is_unit=True)
    assert resume(client, name, ["q"], {tags[0]}) == (1, 0)
    assert held(client) == [tags[0]]
    assert waiting(client) == [tags[1]]
    assert client.exists(f"swarm:deaths:{tags[1]}") == 0

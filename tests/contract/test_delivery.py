"""The scripts over a real Redis: where a message can be, and how it gets there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import kombu
import pytest
import redis
from redis.exceptions import OutOfMemoryError

from swarm.delivery import keys, scripts
from swarm.delivery.dead import DeadLetters, NoSuchLetterError
from swarm.delivery.holder import HolderName
from swarm.delivery.outcome import Outcome, Successor
from swarm.delivery.release import DEATHS, release, settle
from swarm.delivery.transport import register
from tests.loopback import REDIS, RedisServer

ME, OTHER = "host:browser:1:a", "host:browser:2:b"
SEPARATOR = "\x06\x16"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if not REDIS.exists():
        pytest.skip(f"{REDIS} is not installed (Debian package redis-tools)")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.connect() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
        yield client


def message(task_id: str = "", tag: str = "", **headers: Any) -> str:
    return json.dumps(
        {
            "body": "W10=",
            "headers": {"task": "browser.run", "id": task_id or uuid4().hex, **headers},
            "properties": {"delivery_tag": tag or uuid4().hex},
        }
    )


def publish(
    client: redis.Redis,
    queue: str = "q",
    *,
    tag: str = "",
    due: str = "",
    key: str = "",
    task_id: str = "",
) -> str:
    tag, task_id = tag or uuid4().hex, task_id or uuid4().hex
    text = message(task_id, tag)
    answer = scripts.PUBLISH.run(client, tag, queue, text, due, key, 60, task_id, 60)
    return str(answer.decode()) or tag


def take(
    client: redis.Redis,
    *queues: str,
    holder: str = ME,
    most: int = 1,
    watches: bool = False,
    priorities: tuple[int, ...] = (0, 3, 6, 9),
) -> tuple[bool, int, list[str]]:
    """(more, milliseconds until the next is due or -1, tags)."""
    queues = queues or ("q",)
    lists = [f"{q}{SEPARATOR}{p}" if p else q for p in priorities for q in queues]
    more, due, now, *taken = scripts.TAKE.run(
        client, holder, most, "1" if watches else "0", ",".join(queues), *lists
    )
    tags = [json.loads(raw)["properties"]["delivery_tag"] for raw in taken[1::3]]
    return bool(more), due if due < 0 else due - now, tags


def held(client: redis.Redis, holder: str = ME) -> list[str]:
    envelopes: Any = client.lrange(keys.held(holder), 0, -1)
    return [json.loads(e.split(b"\n", 1)[1])["properties"]["delivery_tag"] for e in envelopes]


def waiting(client: redis.Redis, queue: str = "q") -> list[str]:
    """Tags, the next one to be taken first."""
    return [
        json.loads(raw)["properties"]["delivery_tag"]
        for raw in reversed(client.lrange(queue, 0, -1))
    ]


def is_rung(client: redis.Redis, queue: str = "q") -> bool:
    return bool(client.llen(keys.bell(queue)))


def commit(client: redis.Redis, outcome: Outcome, holder: str = ME) -> str:
    return str(scripts.COMMIT.run(client, *outcome.arguments(holder, done_ttl_s=60)).decode())


def due_in(seconds: float) -> str:
    return str(int((datetime.now(UTC) + timedelta(seconds=seconds)).timestamp() * 1000))


# -- publish and take


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


# -- the schedule


def test_a_scheduled_message_waits_until_it_is_due_and_then_comes_first(
    client: redis.Redis,
) -> None:
    late = publish(client, due=due_in(0.3))
    assert waiting(client) == []
    assert is_rung(client), "somebody has to watch it"
    more, due_ms, tags = take(client)
    assert (more, tags) == (False, [])
    assert 0 < due_ms <= 300
    early = publish(client)
    time.sleep(0.35)
    assert take(client, most=2)[2] == [late, early]


def test_due_messages_come_in_the_order_of_their_times(client: redis.Redis) -> None:
    second, first = publish(client, due=due_in(0.2)), publish(client, due=due_in(0.1))
    time.sleep(0.25)
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


# -- commit


def taken(client: redis.Redis, task_id: str = "task") -> Outcome:
    tag = publish(client, task_id=task_id)
    take(client)
    return Outcome(tag, task_id)


def test_a_commit_does_everything_at_once(client: redis.Redis) -> None:
    outcome = taken(client)
    outcome.store("celery-task-meta-task", "{}", 60)
    outcome.enqueue(Successor("next", message("child"), "", "child"))
    assert commit(client, outcome) == "committed"
    assert held(client) == []
    assert client.get("celery-task-meta-task") == b"{}"
    assert len(waiting(client, "next")) == 1
    assert is_rung(client, "next")
    assert client.exists("swarm:done:task")


def test_a_commit_of_what_is_no_longer_held_does_nothing(client: redis.Redis) -> None:
    outcome = taken(client)
    release(client, ME, "return", "test", choice="all")
    outcome.store("celery-task-meta-task", "{}", 60)
    outcome.enqueue(Successor("next", message("child"), "", "child"))
    assert commit(client, outcome) == "gone"
    assert client.get("celery-task-meta-task") is None
    assert waiting(client, "next") == []
    assert waiting(client) == [outcome.tag]


def test_a_repeated_commit_is_recognised_as_such(client: redis.Redis) -> None:
    outcome = taken(client)
    outcome.enqueue(Successor("next", message("child"), "", "child"))
    assert commit(client, outcome) == "committed"
    assert commit(client, outcome) == "again"
    assert len(waiting(client, "next")) == 1


def test_who_lost_a_message_to_another_is_told_so(client: redis.Redis) -> None:
    outcome = taken(client)
    release(client, ME, "died", "given up", choice="all")
    take(client, holder=OTHER)
    assert commit(client, outcome, OTHER) == "committed"
    assert commit(client, outcome, ME) == "gone"
    assert commit(client, outcome, OTHER) == "again"


def test_two_messages_of_one_task_commit_once(client: redis.Redis) -> None:
    first, second = taken(client), taken(client)
    second.store("celery-task-meta-task", "second", 60)
    assert commit(client, first) == "committed"
    assert commit(client, second) == "duplicate"
    assert held(client) == []
    assert client.get("celery-task-meta-task") is None


def test_a_retry_leaves_the_task_open(client: redis.Redis) -> None:
    outcome = taken(client)
    outcome.enqueue(Successor("q", message("task", "retry"), due_in(30), "task"))
    assert commit(client, outcome) == "committed"
    assert client.exists("swarm:done:task") == 0
    assert client.zcard("swarm:scheduled:q") == 1


def test_the_last_part_of_a_group_starts_the_completion_once(client: redis.Redis) -> None:
    client.set("group.s", 2)
    for score in (0, 1):
        outcome = taken(client, f"part{score}")
        completion = Successor("q", message("completion"), "", "completion")
        outcome.add_part("group", score, f"result {score}", 60, completion)
        assert len(waiting(client)) == 0
        assert commit(client, outcome) == "committed"
    assert len(waiting(client)) == 1
    assert client.zrange("group.j", 0, -1) == [b"result 0", b"result 1"]


# -- release


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


def test_the_third_death_makes_a_dead_letter(client: redis.Redis) -> None:
    tag = publish(client, task_id="poison")
    for death in range(1, DEATHS):
        take(client)
        assert release(client, ME, "died", f"death {death}", choice="all") == (1, 0)
    take(client)
    assert release(client, ME, "died", "death 3", choice="all") == (0, 1)
    assert waiting(client) == []
    (letter,) = DeadLetters(client).all()
    assert (letter.tag, letter.task_id, letter.task) == (tag, "poison", "browser.run")
    assert [line.split(" ", 1)[1] for line in letter.history] == ["death 1", "death 2", "death 3"]
    assert "3 workers died under it" in letter.reason
    result = json.loads(client.get("celery-task-meta-poison") or b"")
    assert result["status"] == "FAILURE"
    assert "swarm dead show" in result["result"]["exc_message"][0]


def test_a_commit_forgives_the_deaths_before_it(client: redis.Redis) -> None:
    outcome = taken(client)
    release(client, ME, "died", "once", choice="all")
    take(client)
    assert client.llen(f"swarm:deaths:{outcome.tag}") == 1
    commit(client, outcome)
    assert client.exists(f"swarm:deaths:{outcome.tag}") == 0


def test_a_message_that_comes_again_says_so(client: redis.Redis) -> None:
    publish(client)
    for expected in (None, True, True):
        *_, raw, _ = scripts.TAKE.run(client, ME, 1, "0", "q", "q")
        assert json.loads(raw)["properties"].get("redelivered") is expected
        release(client, ME, "return", "again", choice="all")


def test_a_take_tells_what_is_revoked(client: redis.Redis) -> None:
    publish(client, task_id="unwanted")
    client.set(keys.revoked("unwanted"), "1")
    *_, revoked = scripts.TAKE.run(client, ME, 1, "0", "q", "q")
    assert revoked == 1


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


def test_releasing_what_is_not_held_does_nothing(client: redis.Redis) -> None:
    outcome = taken(client)
    commit(client, outcome)
    assert release(client, ME, "return", "late", choice="only", needles=[outcome.tag]) == (0, 0)
    assert waiting(client) == []


@pytest.mark.parametrize("raw", [b"no JSON", b"\xff\xfe\x00", b"[1]", b'{"headers": 3}', b"null"])
def test_what_is_no_message_is_kept_whole_and_can_be_replayed(
    client: redis.Redis, raw: bytes
) -> None:
    client.lpush("q", raw)
    scripts.TAKE.run(client, ME, 1, "0", "q", "q")
    needle = raw  # what cannot be read has no tag
    count = scripts.RELEASE.run(client, ME, "dead", "unreadable", 3, "now", 60, "only", needle)
    assert count == [0, 1]
    (letter,) = DeadLetters(client).all()
    assert letter.reason == "unreadable"
    assert DeadLetters(client).replay(letter)
    assert client.rpop("q") == raw


def test_a_lost_ring_is_rung_again_when_its_taker_is_released(client: redis.Redis) -> None:
    settle(client, HolderName("host:browser:1:", "a", is_unit=True), ["q"], set())
    publish(client)
    client.blpop([keys.bell("q")], timeout=1)
    assert not is_rung(client)
    release(client, ME, "died", "between bell and queue", choice="all")
    assert is_rung(client)


def test_a_start_returns_what_earlier_runs_of_the_instance_left(client: redis.Redis) -> None:
    tag = publish(client)
    settle(client, HolderName("host:browser:1:", "a", is_unit=True), ["q"], set())
    take(client)
    neighbour = publish(client)
    settle(client, HolderName("host:browser:11:", "a", is_unit=True), ["q"], set())
    take(client, holder="host:browser:11:a")
    assert settle(client, HolderName("host:browser:1:", "z", is_unit=True), ["q"], set()) == (1, 0)
    assert waiting(client) == [tag]
    assert held(client, "host:browser:11:a") == [neighbour]
    assert client.llen(f"swarm:deaths:{tag}") == 1


def test_a_process_that_is_no_unit_has_no_earlier_runs(client: redis.Redis) -> None:
    publish(client)
    settle(client, HolderName("host:browser:1:", "a", is_unit=False), ["q"], set())
    take(client)
    assert settle(client, HolderName("host:browser:1:", "z", is_unit=False), ["q"], set()) == (0, 0)


def test_a_reconnection_returns_what_does_not_run(client: redis.Redis) -> None:
    tags = [publish(client) for _ in range(2)]
    take(client, most=2)
    name = HolderName("host:browser:1:", "a", is_unit=True)
    assert settle(client, name, ["q"], {tags[0]}) == (1, 0)
    assert held(client) == [tags[0]]
    assert waiting(client) == [tags[1]]
    assert client.exists(f"swarm:deaths:{tags[1]}") == 0


# -- consumers that are no workers


@pytest.fixture
def plain_connection(server: RedisServer) -> Iterator[kombu.Connection]:
    register()
    with kombu.Connection(server.url) as connection:
        yield connection


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


# -- dead letters


def test_a_replayed_letter_may_die_three_times_again(client: redis.Redis) -> None:
    tag = publish(client, task_id="poison")
    for _ in range(DEATHS):
        take(client)
        release(client, ME, "died", "again", choice="all")
    letters = DeadLetters(client)
    letter = letters.find("poison")
    assert letters.replay(letter)
    assert not letters.replay(letter)
    assert client.exists("celery-task-meta-poison") == 0
    assert take(client)[2] == [tag]
    assert release(client, ME, "died", "again", choice="all") == (1, 0)


def test_a_dropped_letter_is_gone(client: redis.Redis) -> None:
    outcome = taken(client)
    release(client, ME, "dead", "unknown here", choice="all")
    letters = DeadLetters(client)
    assert letters.drop(letters.find(outcome.tag))
    assert letters.all() == []
    with pytest.raises(NoSuchLetterError, match="swarm dead list"):
        letters.find(outcome.tag)


# -- a full broker


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

"""The scripts over a real Redis: the end of a task, whole or not at all, and once."""

from __future__ import annotations

import redis

from swarm.delivery.outcome import Successor
from swarm.delivery.release import release
from tests.contract.delivery.messages import (
    ME,
    OTHER,
    commit,
    due_in,
    held,
    is_rung,
    message,
    take,
    taken,
    waiting,
)


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


def test_a_commit_forgives_the_deaths_before_it(client: redis.Redis) -> None:
    outcome = taken(client)
    release(client, ME, "died", "once", choice="all")
    take(client)
    assert client.llen(f"swarm:deaths:{outcome.tag}") == 1
    commit(client, outcome)
    assert client.exists(f"swarm:deaths:{outcome.tag}") == 0

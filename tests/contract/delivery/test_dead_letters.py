"""The scripts over a real Redis: what becomes of messages that nobody can do."""

from __future__ import annotations

import json

import pytest
import redis

from swarm.delivery import scripts
from swarm.delivery.dead import DeadLetters, NoSuchLetterError
from swarm.delivery.release import DEATHS, release
from tests.contract.delivery.messages import ME, commit, publish, take, taken, waiting


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


def test_a_committed_result_outlives_another_message_of_its_task(client: redis.Redis) -> None:
    done = taken(client, "task")
    done.store("celery-task-meta-task", "done", 60)
    assert commit(client, done) == "committed"
    again = taken(client, "task")
    release(client, ME, "dead", "rejected", choice="only", needles=[again.tag])
    (letter,) = DeadLetters(client).all()
    assert client.get("celery-task-meta-task") == b"done"
    DeadLetters(client).replay(letter)
    assert client.get("celery-task-meta-task") == b"done"


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


def test_many_letters_are_read_in_portions_and_listed_from_the_oldest(client: redis.Redis) -> None:
    count = 350
    tags = [publish(client, task_id=f"task {number}") for number in range(count)]
    take(client, most=count)
    for tag in tags:
        release(client, ME, "dead", "unknown here", choice="only", needles=[tag])
    client.config_resetstat()
    letters = DeadLetters(client)
    listed = letters.all()
    assert sorted(letter.tag for letter in listed) == sorted(tags)
    assert [letter.at for letter in listed] == sorted(letter.at for letter in listed)
    assert letters.find("task 17").tag == tags[17]
    stats = client.info("commandstats")
    assert stats["cmdstat_hscan"]["calls"] > 5
    assert not {"cmdstat_hvals", "cmdstat_hgetall"} & stats.keys()


def test_a_dropped_letter_is_gone(client: redis.Redis) -> None:
    outcome = taken(client)
    release(client, ME, "dead", "unknown here", choice="all")
    letters = DeadLetters(client)
    assert letters.drop(letters.find(outcome.tag))
    assert letters.all() == []
    with pytest.raises(NoSuchLetterError, match="swarm dead list"):
        letters.find(outcome.tag)

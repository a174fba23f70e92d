"""Publishing over a real Redis: what a producer is told when replies get lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis

from swarm.delivery import scripts
from swarm.delivery.outcome import Successor
from swarm.delivery.publish import RefusedError, publish
from tests.contract.delivery.messages import message, waiting

TASK = Successor("q", message("task", "tag"), "", "task")


@pytest.fixture
def lose_reply(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Lose the reply to the first attempt, and do something before the second."""

    def arrange(then: Callable[[], object]) -> None:
        run, attempts = scripts.Script.run, []

        def run_and_lose(script: scripts.Script, client: redis.Redis, *arguments: Any) -> Any:
            reply = run(script, client, *arguments)
            attempts.append(script)
            if len(attempts) == 1:
                then()
                raise redis.ConnectionError("the reply got lost")
            return reply

        monkeypatch.setattr(scripts.Script, "run", run_and_lose)

    return arrange


def test_a_lost_reply_is_asked_for_again(
    client: redis.Redis, lose_reply: Callable[[Callable[[], object]], None]
) -> None:
    lose_reply(lambda: None)
    publish(client, TASK, tag="tag")
    assert waiting(client) == ["tag"]


def test_a_refusal_behind_a_lost_reply_does_not_say_that_nothing_was_queued(
    client: redis.Redis, lose_reply: Callable[[Callable[[], object]], None]
) -> None:
    lose_reply(lambda: client.config_set("maxmemory", 1))
    with pytest.raises(redis.ConnectionError, match="got lost") as lost:
        publish(client, TASK, tag="tag")
    assert isinstance(lost.value.__cause__, RefusedError)
    assert waiting(client) == ["tag"]


def test_a_refusal_of_the_first_attempt_is_one(client: redis.Redis) -> None:
    client.config_set("maxmemory", 1)
    with pytest.raises(RefusedError):
        publish(client, TASK, tag="tag")
    assert waiting(client) == []

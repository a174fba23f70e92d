"""Whether a task waits: looked for in its queues, a portion at a time."""

from __future__ import annotations

from collections.abc import Iterable

import redis

from swarm.delivery import scripts
from swarm.delivery.app import CollectingChannel

#: Messages that one look goes through: about a millisecond, in which the broker does nothing else.
_PORTION = 1000


def waits(client: redis.Redis, task_id: str, queues: Iterable[str]) -> bool:
    """Whether the task's message lies in one of the queues or their schedules.

    What moves on while this looks is found where it was, or not at all; nothing is missed that
    stays.

    Raises:
        redis.RedisError: the broker is away, or this user may not see what waits.
    """
    return any(
        _is_in(client, key, task_id, schedule=schedule)
        for queue in queues
        for key in _lists(queue)
        for schedule in (False, True)
    )


def _lists(queue: str) -> list[str]:
    """A queue's lists, one for each priority (kombu's names)."""
    return [queue, *(f"{queue}{CollectingChannel.sep}{priority}" for priority in range(1, 10))]


def _is_in(client: redis.Redis, key: str, task_id: str, *, schedule: bool) -> bool:
    at, more = 0, True
    while more:
        found, more = scripts.FIND.run(client, key, task_id, at, _PORTION, int(schedule))
        if found:
            return True
        at += _PORTION
    return False

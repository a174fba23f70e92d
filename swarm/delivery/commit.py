"""Committing what a task's end does to Redis, once the broker answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import redis

from swarm.delivery import scripts
from swarm.delivery.holder import worker_holder
from swarm.delivery.outcome import Outcome

log = logging.getLogger(__name__)

#: Seconds for which a completed task is known as such.
DONE_S = 24 * 3600
#: Bounds of the pause between two attempts to commit, in seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


def commit(outcome: Outcome, client: redis.Redis, *, is_patient: bool) -> None:
    """End a task in one step.

    A task's own process is patient, and tries until the broker takes it: it has nothing better to
    do, and the task's time limit over it. A parent goes on, and its holder tells
    the broker later.

    Raises:
        redis.RedisError: a refusal that lasts; the message is still held.
    """
    holder = worker_holder()
    arguments = outcome.arguments(str(holder.name), done_ttl_s=DONE_S)
    run = partial(_run, client, outcome.task_id, arguments)
    try:
        run()
    except (redis.RedisError, OSError) as exc:
        if not scripts.is_passing(exc):
            raise
        log.warning(
            "a task's end waits for the broker",
            extra={"fields": {"task_id": outcome.task_id, "reason": str(exc)}},
        )
        if is_patient:
            _persist(run)
        else:
            holder.tell_later(outcome.tag, run)
    outcome.is_closed = True


def _run(client: redis.Redis, task_id: str, arguments: list[Any]) -> None:
    answer = scripts.COMMIT.run(client, *arguments)
    if answer in {b"gone", b"duplicate"}:
        log.warning(
            "a task's end came too late and changed nothing: %s",
            "its message is no longer this worker's"
            if answer == b"gone"
            else "another message of the same task is committed",
            extra={"fields": {"task_id": task_id}},
        )


def _persist(run: Callable[[], object]) -> None:
    pause_s = _FIRST_PAUSE_S
    while True:
        time.sleep(pause_s)
        try:
            run()
        except (redis.RedisError, OSError) as exc:
            if not scripts.is_passing(exc):
                raise
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        else:
            return

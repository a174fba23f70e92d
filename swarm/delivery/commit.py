"""Committing what a task's end does to Redis, once the broker answers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import redis
from billiard.exceptions import SoftTimeLimitExceeded
from celery._state import get_current_task

from swarm.delivery import scripts
from swarm.delivery.holder import worker_holder
from swarm.delivery.outcome import Outcome

log = logging.getLogger(__name__)

#: Seconds for which a completed task is known as such.
DONE_S = 24 * 3600
#: Bounds of the pause between two attempts to commit, in seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0


def commit(outcome: Outcome, client: redis.Redis) -> None:
    """End a task in one step.

    A task's own process waits for the broker as long as it takes: it has nothing better to do, and
    the hard time limit over it. A parent goes on, and its holder tells the broker later.

    Raises:
        redis.RedisError: a refusal that lasts; the message is still held.
    """
    holder = worker_holder()
    arguments = outcome.arguments(str(holder.name), done_ttl_s=DONE_S)
    run = partial(_run, client, outcome.task_id, arguments)
    if holder.is_inherited or get_current_task() is not None:
        _persist(run, outcome.task_id)
    else:
        try:
            run()
        except (redis.RedisError, OSError) as exc:
            if not scripts.is_transient(exc):
                raise
            _log_wait(outcome.task_id, exc)
            holder.pending_ends.add(outcome.tag, run)
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


def _persist(run: Callable[[], object], task_id: str) -> None:
    pause_s = 0.0
    while True:
        try:
            time.sleep(pause_s)
            run()
        except SoftTimeLimitExceeded:
            # The limit is the body's, and that is over.
            continue
        except (redis.RedisError, OSError) as exc:
            if not scripts.is_transient(exc):
                raise
            if not pause_s:
                _log_wait(task_id, exc)
            pause_s = min(2 * pause_s or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        else:
            return


def _log_wait(task_id: str, exc: Exception) -> None:
    log.warning(
        "a task's end waits for the broker",
        extra={"fields": {"task_id": task_id, "reason": str(exc)}},
    )

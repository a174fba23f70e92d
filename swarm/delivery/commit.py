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
from swarm.delivery.spool import SpooledEnd

log = logging.getLogger(__name__)

#: Seconds for which a completed task is known as such.
DONE_S = 24 * 3600
#: Bounds of the pause between two attempts to commit, in seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
#: Seconds of attempts until an end goes to the disk: a blink of the broker is not worth it.
_SPOOL_AFTER_S = 5.0


def commit(outcome: Outcome, client: redis.Redis) -> None:
    """End a task in one step.

    A task's own process waits for the broker for some seconds, and leaves the end on the disk then:
    the hard time limit is over it. A parent goes on. Its holder tells the broker later, of both.

    Raises:
        redis.RedisError: a refusal that lasts; the message is still held.
    """
    holder = worker_holder()
    arguments = outcome.arguments(str(holder.name), done_ttl_s=DONE_S)
    run = partial(_run, client, outcome.task_id, arguments)
    if holder.is_inherited or get_current_task() is not None:
        _persist(run, SpooledEnd(outcome.tag, outcome.task_id, tuple(arguments)))
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


def _persist(run: Callable[[], object], end: SpooledEnd) -> None:
    attempts = _Attempts(run, end)
    while True:
        try:
            if attempts.succeed():
                return
        except SoftTimeLimitExceeded:
            # Wherever it strikes: the limit is the body's, and that is over.
            continue


class _Attempts:
    """To tell the broker of an end, else the disk."""

    def __init__(self, run: Callable[[], object], end: SpooledEnd) -> None:
        self._run, self._end = run, end
        self._begun, self._pause_s, self._can_spool = time.monotonic(), 0.0, True

    def succeed(self) -> bool:
        """One attempt, after a pause that grows; whether the end is safe."""
        time.sleep(self._pause_s)
        try:
            self._run()
        except (redis.RedisError, OSError) as exc:
            if not scripts.is_transient(exc):
                raise
            if not self._pause_s:
                _log_wait(self._end.task_id, exc)
        else:
            return True
        self._pause_s = min(2 * self._pause_s or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        if self._can_spool and time.monotonic() - self._begun >= _SPOOL_AFTER_S:
            is_spooled = _spool(self._end)
            # Not again: what the disk refuses it refuses later, too.
            self._can_spool = False
            return is_spooled
        return False


def _spool(end: SpooledEnd) -> bool:
    """Leave it on the disk; False if that cannot be."""
    spool = worker_holder().spool
    if spool is None:
        return False
    fields = {"task_id": end.task_id}
    try:
        spool.write(end)
    except OSError as exc:
        fields["reason"] = str(exc)
        log.warning(
            "a task's end cannot be left on the disk, its process waits", extra={"fields": fields}
        )
        return False
    log.warning("a task's end is on the disk until the broker answers", extra={"fields": fields})
    return True


def _log_wait(task_id: str, exc: Exception) -> None:
    log.warning(
        "a task's end waits for the broker",
        extra={"fields": {"task_id": task_id, "reason": str(exc)}},
    )

"""Publishing a message: once, soon, and never claimed to be accepted when it was not."""

from __future__ import annotations

import time

import redis
from kombu.exceptions import OperationalError
from kombu.utils.encoding import bytes_to_str

from swarm.brokers import classify, counting
from swarm.delivery import scripts
from swarm.delivery.outcome import Successor
from swarm.errors import DuplicateTaskError

#: Seconds after which a second attempt to publish would exceed what a producer is promised.
_RETRY_WITHIN_S = 0.5
#: Seconds in which a repeated publish is recognised.
_GUARD_S = 60
#: Seconds for which an idempotency key keeps its task.
_CLAIM_S = 24 * 3600


class RefusedError(OperationalError):
    """The broker did not accept the message."""


class UncertainError(OperationalError):
    """The broker broke off: whether it has accepted the task `task_id`, nobody knows."""

    def __init__(self, reason: str, task_id: str) -> None:
        super().__init__(reason)
        self.task_id = task_id


def publish(
    client: redis.Redis, successor: Successor, *, tag: str, idempotency_key: str = ""
) -> None:
    """Put a message into its queue.

    Raises:
        RefusedError: it was not accepted.
        DuplicateTaskError: a task with this idempotency key was accepted before.
        redis.ConnectionError, redis.TimeoutError: it broke off; if `classify` calls the error
            uncertain, nobody knows whether it was accepted.
    """
    started = time.monotonic()
    try:
        claimed_by = _run(client, successor, tag, idempotency_key)
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as lost:
        # A connection that died unnoticed since its last use. The guard makes a repetition
        # harmless, the time limit keeps the producer's promise.
        if time.monotonic() - started > _RETRY_WITHIN_S:
            raise
        try:
            claimed_by = _run(client, successor, tag, idempotency_key)
        except (redis.ConnectionError, redis.TimeoutError, RefusedError) as again:
            if not classify(lost).uncertain:
                raise
            # It says nothing of the first attempt, whose reply got lost.
            raise lost from again
    if claimed_by:
        raise DuplicateTaskError(bytes_to_str(claimed_by))


def try_out(client: redis.Redis) -> None:
    """What publishing does to the broker, without a message.

    Raises:
        redis.RedisError: it would not be accepted.
    """
    scripts.PUBLISH.run(client, "trial", "", "", "", "", 0, "", 0, 0)


def _run(client: redis.Redis, successor: Successor, tag: str, idempotency_key: str) -> bytes:
    try:
        with counting.told(client) as requests:
            claimed_by: bytes = scripts.PUBLISH.run(
                client,
                tag,
                successor.key,
                successor.message,
                successor.due,
                idempotency_key,
                _CLAIM_S,
                successor.task_id,
                _GUARD_S,
                requests,
            )
    except redis.exceptions.OutOfMemoryError as exc:
        raise RefusedError(
            "its memory is full; tasks are still being done, try again later"
        ) from exc
    except redis.exceptions.ResponseError as exc:
        raise RefusedError(str(exc)) from exc
    return claimed_by

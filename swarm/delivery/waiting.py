"""Waiting for one result with two commands: leave an address, and wait for the answer there.

Celery subscribes to a channel, asks whether the result is there already, and unsubscribes. Here
one script answers with the result or notes the waiter's mailbox, and the commit puts the result
into every mailbox noted for its task. An answer that nobody fetches expires.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any
from uuid import uuid4

import redis
from celery.backends import redis as celery_redis

from swarm.brokers import counting
from swarm.delivery import scripts

#: Seconds after which a waiter asks again: its note may have been lost with a Redis that was
#: restored, or the result stored by something else than a commit.
ASK_AGAIN_S = 60.0
#: Subscriptions that nobody needs any more which are worth a new connection.
_MOST_UNNEEDED = 1000
#: Seconds that an answer may be late before its connection counts as lost.
_LATE_S = 3.0


class Mailbox:
    """Where one thread's answers arrive."""

    def __init__(self, pool: redis.ConnectionPool) -> None:
        self._name = f"swarm:mailbox:{uuid4().hex}"
        self._pool = pool
        self._process = os.getpid()

    @property
    def is_inherited(self) -> bool:
        """Whether it is that of the process from which this one was forked."""
        return self._process != os.getpid()

    def wait(self, client: redis.Redis, key: str | bytes, timeout_s: float | None) -> bytes | None:
        """The value stored at `key`, waiting for it; None when it is not there in time.

        Raises:
            redis.RedisError: the broker is away.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = ASK_AGAIN_S if deadline is None else deadline - time.monotonic()
            patience_s = min(ASK_AGAIN_S, left_s)
            note_s = int(patience_s + 2 * ASK_AGAIN_S) if patience_s > 0 else 0
            with counting.told(client) as requests:
                value: bytes | None = scripts.AWAIT.run(client, key, self._name, note_s, requests)
            if value is None and patience_s > 0:
                value = self._receive(key, patience_s)
            if value is not None or (deadline is not None and time.monotonic() >= deadline):
                return value

    def _receive(self, key: str | bytes, patience_s: float) -> bytes | None:
        """The answer for `key`; older ones, for waits that were given up, are passed over."""
        name = key.encode() if isinstance(key, str) else key
        deadline = time.monotonic() + patience_s
        while (left_s := deadline - time.monotonic()) > 0:
            reply = self._pop(left_s)
            if reply is None:
                return None
            answered, _, value = bytes(reply[1]).partition(b"\n")
            if answered == name:
                return value
        return None

    def _pop(self, timeout_s: float) -> Any:
        # The pool looks whether the connection was closed meanwhile, and whose process it is of.
        connection: Any = self._pool.get_connection()
        try:
            connection.send_command("BLPOP", self._name, max(0.01, round(timeout_s, 3)))
            if not connection.can_read(timeout=timeout_s + _LATE_S):
                raise redis.exceptions.TimeoutError("no answer from the broker")  # noqa: TRY301
            return connection.read_response()
        except BaseException:
            connection.disconnect()
            raise
        finally:
            self._pool.release(connection)


class Mailboxes(threading.local):
    """A mailbox for each thread that waits."""

    mailbox: Mailbox | None = None

    def mine(self, pool: redis.ConnectionPool) -> Mailbox:
        if self.mailbox is None or self.mailbox.is_inherited:
            self.mailbox = Mailbox(pool)
        return self.mailbox


class ResultConsumer(celery_redis.ResultConsumer):
    """Subscribes when somebody waits for several results, not for each as it is submitted.

    It never unsubscribes from one: a handle that nobody needs any more ends in Python's garbage
    collector, which must not wait for a broker that is away. The connection ends instead.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._wanted: set[str] = set()
        self._unneeded = 0

    def consume_from(self, task_id: str) -> None:
        self._wanted.add(task_id)

    def cancel_for(self, task_id: str) -> None:
        self._wanted.discard(task_id)
        key = self._get_key_for_task(task_id)
        if key in self.subscribed_to:
            self.subscribed_to.discard(key)
            self._unneeded += 1

    def on_wait_for_pending(self, result: Any, **kwargs: Any) -> None:
        if self._unneeded >= _MOST_UNNEEDED and not self.subscribed_to:
            self.stop()
            self._pubsub = None
            self._unneeded = 0
        wanted, self._wanted = self._wanted, set()
        for task_id in wanted:
            super().consume_from(task_id)
        super().on_wait_for_pending(result, **kwargs)

"""The Celery app: its tasks commit, and what ends a task is published without a connection."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cached_property
from typing import Any

import kombu
from celery import Celery
from kombu.transport import memory
from kombu.transport import redis as kombu_redis

from swarm.delivery import outcome
from swarm.delivery.message import IDEMPOTENCY_HEADER, payloads_key, successor_for
from swarm.errors import DuplicateTaskError


class CollectingChannel(memory.Channel):
    """Hands everything that is published to the outcome of this thread's task.

    It prepares messages as the real channel does. With that one, a task that has done its work
    while the broker is away would fail when it publishes what follows from it.
    """

    sep = kombu_redis.Channel.sep
    priority_steps = kombu_redis.PRIORITY_STEPS
    priority = kombu_redis.Channel.priority
    q_for_priority = kombu_redis.Channel._q_for_pri  # noqa: SLF001 - the layout is kombu's

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        priority = self._get_message_priority(message, reverse=False)
        outcome.collect(successor_for(self.q_for_priority(queue, priority), message))


class CollectingTransport(memory.Transport):
    """A transport to nowhere."""

    Channel = CollectingChannel


class DeliveryCelery(Celery):
    """Celery with our task, our control, and a producer for the ends of tasks."""

    task_cls = "swarm.delivery.task:Task"
    control_cls = "swarm.delivery.control:Control"

    def producer_or_acquire(self, producer: Any = None) -> Any:
        if producer is None and outcome.is_collecting():
            return nullcontext(self._collecting_producer)
        return super().producer_or_acquire(producer)

    def send_task(
        self, name: str, args: Any = None, kwargs: Any = None, *positional: Any, **options: Any
    ) -> Any:
        """Publish a task, unless its payload's idempotency key has had one.

        Then the result is that task's own.
        """
        key = payloads_key(args, kwargs)
        if key:
            options["headers"] = {IDEMPOTENCY_HEADER: key, **(options.get("headers") or {})}
        try:
            return super().send_task(name, args, kwargs, *positional, **options)
        except DuplicateTaskError as exc:
            return self.AsyncResult(exc.task_id)

    @cached_property
    def _collecting_producer(self) -> Any:
        connection = kombu.Connection(transport=CollectingTransport)
        return self.amqp.Producer(connection, auto_declare=False)

"""The Celery app: its tasks commit, and what ends a task is published without a connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from threading import RLock
from typing import Any, Literal

import kombu
from celery import Celery
from kombu.transport import memory
from kombu.transport import redis as kombu_redis

from swarm.brokers import BrokerName, Brokers, classify, counting
from swarm.delivery import outcome
from swarm.delivery.failover import Failover
from swarm.delivery.message import IDEMPOTENCY_HEADER, payloads_key, successor_for
from swarm.delivery.publish import RefusedError
from swarm.delivery.routed import RoutedBackend
from swarm.delivery.submission import Submission
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


@dataclass(frozen=True, slots=True)
class Brokerage:
    """What a producer needs to know of the brokers."""

    brokers: Brokers
    fallback_configuration: Mapping[str, Any] = field(default_factory=dict)
    """Celery's, for the fallback; of no use without one."""
    on_uncertain: Literal["duplicate", "hold"] = "duplicate"
    metered: frozenset[BrokerName] = frozenset()
    """Brokers that are told how much this process asks of them."""


class DeliveryCelery(Celery):
    """Celery with our task, our control, and a producer for the ends of tasks.

    What a producer submits goes to the broker that takes it (`swarm.delivery.submission`), and
    results are looked for there (`swarm.delivery.routed`).
    """

    task_cls = "swarm.delivery.task:Task"
    control_cls = "swarm.delivery.control:Control"

    def __init__(
        self,
        *args: Any,
        read_configuration: Callable[[], Mapping[str, Any]] = dict,
        read_brokerage: Callable[[], Brokerage | None] = lambda: None,
        **kwargs: Any,
    ) -> None:
        """Both are called when they are first needed, and again if they raised ConfigError.

        `read_configuration` returns Celery's settings. `read_brokerage` returns None for a service
        that serves one broker, and publishes there only.
        """
        # Threads of a producer may be the first together.
        self._reading = RLock()
        self._conf: Any
        self._configuration: Any = None
        super().__init__(*args, **kwargs)
        self._read_configuration = read_configuration
        self._read_brokerage = read_brokerage

    def prepare_config(self, c: Any) -> Any:
        """Celery's hook before settings are in force; what it adds later is missing at first."""
        return super().prepare_config({**self._read_configuration(), **(c or {})})  # type: ignore[arg-type]

    def _load_config(self) -> Any:
        with self._reading:
            # Celery forgets what it has when it is given another source.
            if self._configuration is None or self._configuration is not self._conf:
                self._configuration = super()._load_config()  # type: ignore[misc]
            return self._configuration

    @cached_property
    def submission(self) -> Submission | None:
        """What hands a producer's tasks to its brokers."""
        with self._reading:
            # The same for whoever has waited: later Pythons do not lock what they cache.
            return self._submission

    @cached_property
    def _submission(self) -> Submission | None:
        brokerage = self._read_brokerage()
        if brokerage is None:
            return None
        for broker in brokerage.brokers:
            if broker.name in brokerage.metered:
                counting.tell(broker)
        apps: dict[BrokerName, DeliveryCelery] = {"primary": self}
        if brokerage.brokers.fallback is not None:
            apps["fallback"] = DeliveryCelery(
                f"{self.main} on the fallback",
                set_as_current=False,
                read_configuration=lambda: brokerage.fallback_configuration,
            )
        return Submission(
            Failover(brokerage.brokers),
            apps,
            holds_uncertain=brokerage.on_uncertain == "hold",
        )

    def producer_or_acquire(self, producer: Any = None) -> Any:
        if producer is None and outcome.is_collecting():
            return nullcontext(self._collecting_producer)
        if producer is None and self.submission is not None:
            return self.submission.producer()
        return self.acquire_producer(producer)

    @contextmanager
    def acquire_producer(self, producer: Any = None) -> Iterator[Any]:
        """One of this app's own broker, whose connection outlives an answer that is an error.

        kombu closes it after every exception, and three requests more are made to enter anew.
        """
        answer: Exception | None = None
        with super().producer_or_acquire(producer) as acquired:
            try:
                yield acquired
            except (DuplicateTaskError, RefusedError) as exc:
                # What is loading, or no primary any more, may have another address by now.
                if classify(exc).state not in {"ok", "limited"}:
                    raise
                answer = exc
        if answer is not None:
            raise answer

    def send_task(
        self, name: str, args: Any = None, kwargs: Any = None, *positional: Any, **options: Any
    ) -> Any:
        """Publish a task, unless its payload's idempotency key has had one.

        Then the result is that task's own.

        Raises:
            RefusedError: no broker accepted it.
            UncertainError: the broker broke off, and may have accepted it.
            ConfigError: a broker does not let us in.
        """
        key = payloads_key(args, kwargs)
        if key:
            options["headers"] = {IDEMPOTENCY_HEADER: key, **(options.get("headers") or {})}
        try:
            if self.submission is None or outcome.is_collecting():
                return super().send_task(name, args, kwargs, *positional, **options)
            return self.submission.send(name, args, kwargs, *positional, **options)
        except DuplicateTaskError as exc:
            return self.AsyncResult(exc.task_id)

    def publish_task(self, *args: Any, **options: Any) -> Any:
        """Celery's own `send_task`, on this app's broker.

        Raises:
            DuplicateTaskError: a task with this idempotency key was accepted before.
        """
        return super().send_task(*args, **options)

    def _get_backend(self) -> Any:
        backend = super()._get_backend()  # type: ignore[misc]
        if self.submission is None or len(self.submission.apps) == 1:
            return backend
        return RoutedBackend(self.submission, backend)

    @cached_property
    def _collecting_producer(self) -> Any:
        connection = kombu.Connection(transport=CollectingTransport)
        return self.amqp.Producer(connection, auto_declare=False)

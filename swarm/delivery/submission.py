"""Handing a producer's tasks to its brokers: to the other one if the first has not got it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from swarm.brokers import BrokerName, Verdict, classify, refusal
from swarm.delivery import ids, metrics
from swarm.delivery.connections import patient_for
from swarm.delivery.failover import Failover, Operation, Placement, current_placement
from swarm.delivery.publish import RefusedError, UncertainError
from swarm.errors import ConfigError, DuplicateTaskError

log = logging.getLogger(__name__)

#: How a broker's absence arrives: kombu translates what its transport declares as connection
#: errors, the rest comes as redis-py and the socket raised it.
AWAY = (OperationalError, RedisError, OSError)
#: Seconds for one broker, entering it included; what is left of three is for the other one.
_PATIENCE_S = 2.5
#: Seconds of waiting for one of the process's producers after which the broker's state may be news.
_POOL_WAIT_S = 0.5


class BrokerApp(Protocol):
    """The part of `swarm.delivery.app.DeliveryCelery` that is needed."""

    backend: Any
    AsyncResult: Any
    tasks: Any

    def acquire_producer(self, producer: Any = None) -> Any: ...

    def publish_task(self, *args: Any, **options: Any) -> Any: ...


class Submission:
    """`apps` has one for each broker; the primary's is the one that people use."""

    def __init__(
        self, failover: Failover, apps: Mapping[BrokerName, Any], *, holds_uncertain: bool
    ) -> None:
        self.failover = failover
        self.apps: Mapping[BrokerName, BrokerApp] = apps
        self._holds_uncertain = holds_uncertain
        # What Celery hands back for each part of a group, and the broker that it is connected to.
        self._lent: WeakKeyDictionary[Any, BrokerName] = WeakKeyDictionary()

    @contextmanager
    def producer(self) -> Iterator[Any]:
        """What Celery acquires for several tasks; those for the other broker go by another one."""
        placement = current_placement()
        broker: BrokerName = "primary" if placement is None else placement.broker
        with self.apps[broker].acquire_producer() as producer:
            self._lent[producer] = broker
            yield producer

    def backend(self, broker: BrokerName) -> Any:
        """The result backend of one broker."""
        backend = self.apps[broker].backend
        return getattr(backend, "primary", backend)

    def places(self, task_id: str) -> list[BrokerName]:
        """Where a task may be, the likeliest first; a single one if that is known."""
        if len(self.apps) == 1:
            return ["primary"]
        known = self.failover.remembered(task_id)
        if known is not None:
            return [known]
        named = ids.broker_of(task_id)
        if named == "fallback":
            return [named]
        return ["primary", "fallback"]

    def send(self, name: str, args: Any, kwargs: Any, *positional: Any, **options: Any) -> Any:
        """Publish a task where it is accepted; its result's id tells where that is, or we know.

        Raises:
            RefusedError: no broker accepted it.
            UncertainError: a broker broke off, and may have accepted it.
            DuplicateTaskError: a task with this idempotency key was accepted before.
            ConfigError: a broker does not let us in.
        """
        with self.failover.placing() as placement:
            producer = options.pop("producer", None)
            lent_by = None if producer is None else self._lent.get(producer)
            if options.get("connection") or (producer is not None and lent_by is None):
                # Somebody's own connection, of which nothing is known.
                return self.apps["primary"].publish_task(
                    name, args, kwargs, *positional, producer=producer, **options
                )
            given = options.pop("task_id", None)
            options.setdefault("result_cls", self.apps["primary"].AsyncResult)
            options.setdefault("task_type", self.apps["primary"].tasks.get(name))
            task_id = given or ids.new_id(placement.broker)

            def publish(broker: BrokerName) -> Any:
                own_id = given or ids.named(task_id, broker)
                # Who holds one already must not wait for another: all may be held by such.
                own = producer if lent_by == broker else None
                sent = self._publish(
                    broker, own, name, args, kwargs, *positional, task_id=own_id, **options
                )
                self.failover.remember(own_id, broker)
                return sent

            sent = self._place(placement, publish)
            placement.is_pinned = True
            return sent

    def call(self, operation: Operation) -> Any:
        """Do what a workflow needs in the result backend of the broker that it is placed on.

        `operation` is given that backend. Until a task of the workflow is accepted, all of this is
        done again on the other broker if the workflow goes there.

        Raises:
            RefusedError: neither does it.
            ConfigError: a broker does not let us in.
        """
        with self.failover.placing() as placement:
            result = self._place(placement, lambda broker: self._call(broker, operation))
            placement.prelude.append(operation)
            return result

    def _place(self, placement: Placement, attempt: Callable[[BrokerName], Any]) -> Any:
        first = placement.broker
        try:
            return attempt(first)
        except _NotTakenError as error:
            is_held = error.uncertain_id is not None and self._holds_uncertain
            if placement.is_pinned or is_held or len(self.apps) == 1:
                raise error.public() from error.cause
            second: BrokerName = "primary" if first == "fallback" else "fallback"
            log.warning(
                "the %s did not take a task, the %s is to have it: %s",
                first,
                second,
                error.cause,
                extra={"fields": {"broker": first, "uncertain": error.uncertain_id is not None}},
            )
            try:
                for operation in placement.prelude:
                    self._call(second, operation)
                result = attempt(second)
            except ConfigError as other:
                if error.uncertain_id is None:
                    raise
                told = f"{first}: {error.cause}; {second}: {other}"
                raise UncertainError(told, error.uncertain_id) from other
            except _NotTakenError as other:
                for each in (error, other):
                    if each.uncertain_id is not None:
                        raise each.public() from each.cause
                told = f"{first}: {error.cause}; {second}: {other.cause}"
                raise RefusedError(told) from other.cause
        placement.broker, placement.has_moved = second, True
        return result

    def _publish(self, broker: BrokerName, lent: Any, *args: Any, **options: Any) -> Any:
        """Publish there, by the producer that was lent if any, and take note of how that went.

        Raises:
            _NotTakenError: it was not accepted, or nobody knows.
        """
        app, asked = self.apps[broker], time.monotonic()
        begun, reached = asked, False
        try:
            with app.acquire_producer(lent) as producer, patient_for(_PATIENCE_S):
                begun = time.monotonic()
                if begun - asked > _POOL_WAIT_S and not self.failover.is_usable(broker):
                    # Those who had all producers waited for the broker meanwhile: once is enough.
                    raise _NotTakenError(RefusedError(self.failover.reason(broker)), None)
                # The first use of the channel connects; only what follows can queue anything.
                reached = producer.channel is not None
                sent = app.publish_task(*args, producer=producer, **options)
        except DuplicateTaskError:
            self._took(broker, begun)
            raise
        except AWAY as exc:
            verdict = self._failed(broker, exc, begun)
            is_uncertain = reached and verdict.uncertain and not isinstance(exc, RefusedError)
            outcome = "uncertain" if is_uncertain else "refused"
            metrics.PUBLISHED.labels(broker, outcome).inc()
            raise _NotTakenError(exc, options["task_id"] if is_uncertain else None) from exc
        self._took(broker, begun)
        metrics.PUBLISHED.labels(broker, "accepted").inc()
        return sent

    def _call(self, broker: BrokerName, operation: Operation) -> Any:
        begun = time.monotonic()
        try:
            with patient_for(_PATIENCE_S):
                result = operation(self.backend(broker))
        except AWAY as exc:
            self._failed(broker, exc, begun)
            raise _NotTakenError(exc, None) from exc
        self._took(broker, begun)
        return result

    def _took(self, broker: BrokerName, begun: float) -> None:
        self.failover.tell(broker, classify(None), time.monotonic() - begun)

    def _failed(self, broker: BrokerName, exc: BaseException, begun: float) -> Verdict:
        """Take note of a failure.

        Raises:
            ConfigError: the broker does not let us in, which no other broker would mend.
        """
        verdict = classify(exc)
        self.failover.tell(broker, verdict, time.monotonic() - begun)
        if verdict.state == "refused":
            raise ConfigError([refusal(self.failover.broker(broker), verdict)]) from exc
        return verdict


class _NotTakenError(Exception):
    def __init__(self, cause: Exception, uncertain_id: str | None) -> None:
        """`uncertain_id` is the task's if it may have been accepted all the same."""
        super().__init__(cause)
        self.cause = cause
        self.uncertain_id = uncertain_id

    def public(self) -> RefusedError | UncertainError:
        if self.uncertain_id is not None:
            return UncertainError(str(self.cause), self.uncertain_id)
        return RefusedError(str(self.cause))

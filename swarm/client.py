"""Submit tasks and read their results: what `swarm submit` and `swarm result` are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from celery import Celery
from celery import states as celery_states
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from swarm.analysis.model import parse_analysis_job
from swarm.brokers import failure
from swarm.browse.errors import JobError
from swarm.browse.payload import parse_browser_job
from swarm.delivery.message import IDEMPOTENCY_HEADER, payloads_key
from swarm.delivery.publish import RefusedError, UncertainError
from swarm.errors import BrokerAwayError, ConfigError, Problem, SwarmError
from swarm.settings import TaskType

_PARSERS: dict[TaskType, Callable[[object], object]] = {
    "browser": parse_browser_job,
    "analysis": parse_analysis_job,
}
# kombu translates what its transport declares as connection errors; the rest arrives as redis-py
# and the socket raised it.
_AWAY = (OperationalError, RedisError, OSError)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What is known of a task.

    Of a browser task that failed `value` is its result as far as it came, evidence included.
    `pending` says that no result is stored: the task waits, runs, or its id was never issued.
    """

    id: str
    state: Literal["pending", "done", "failed"]
    value: Any = None
    error: str | None = None


class Client:
    """Submits to the app's brokers. Every call answers or fails within a few seconds."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def submit(
        self,
        task_type: TaskType,
        payload: dict[str, Any],
        *,
        idempotency_key: str | None = None,
    ) -> str:
        """Check the payload, queue the task, return its id.

        With an `idempotency_key`, given here or in a browser payload, that was used in the last 24
        hours nothing is queued, and the id is that of the task which was.

        Raises:
            ConfigError: the payload is wrong; every wrong field is named. Or no pool of
                config.yaml runs such tasks.
            BrokerAwayError: no broker could be reached or accepted the task, nothing was queued;
                or one broke off, and then the message says that the task may be queued, and its
                id.
        """
        _PARSERS[task_type](payload)
        # Celery would put it into the default queue, for workers that cannot do it.
        if f"{task_type}.*" not in self._app.conf.task_routes:
            expected = "a task type that a pool of config.yaml runs"
            raise ConfigError([Problem("TYPE", task_type, expected)])
        key = idempotency_key or payloads_key([payload], None)
        try:
            sent = self._app.send_task(
                f"{task_type}.run",
                args=[payload],
                headers={IDEMPOTENCY_HEADER: key} if key else None,
            )
        except UncertainError as exc:
            raise BrokerAwayError(
                f"the broker broke off; task {exc.task_id} may or may not be queued: {exc}"
            ) from exc
        except RefusedError as exc:
            raise BrokerAwayError(f"no broker took the task, nothing was queued: {exc}") from exc
        except _AWAY as exc:
            # Of an app that is no producer's.
            raise BrokerAwayError(f"the task may or may not be queued: {exc}") from exc
        return str(sent.id)

    def revoke(self, task_id: str) -> None:
        """Keep the task from being started, now and later; one that runs goes on.

        Raises:
            BrokerAwayError: the broker could not be reached.
            ConfigError: it does not let us in.
        """
        try:
            self._app.control.revoke(task_id)
        except _AWAY as exc:
            raise self._failure(task_id, exc) from exc

    def result(self, task_id: str, *, wait_s: float = 0.0) -> TaskResult:
        """The task's result, waiting for it up to `wait_s` seconds.

        Raises:
            BrokerAwayError: the broker could not be reached.
            ConfigError: it does not let us in.
        """
        handle: AsyncResult[Any] = AsyncResult(task_id, app=self._app)
        try:
            if wait_s > 0:
                handle.get(timeout=wait_s, propagate=False)
            state, value = handle.state, handle.result
        except CeleryTimeoutError:
            return TaskResult(task_id, "pending")
        except _AWAY as exc:
            raise self._failure(task_id, exc) from exc
        if state == celery_states.SUCCESS:
            return TaskResult(task_id, "done", value=value)
        if state in celery_states.READY_STATES:
            known = value.result if isinstance(value, JobError) else None
            return TaskResult(task_id, "failed", known, f"{type(value).__name__}: {value}")
        return TaskResult(task_id, "pending")

    def _failure(self, task_id: str, exc: Exception) -> SwarmError:
        """What to say of the broker that probably has the task."""
        submission = getattr(self._app, "submission", None)
        if submission is None:
            return BrokerAwayError(f"the broker did not answer: {exc}")
        return failure(submission.failover.broker(submission.places(task_id)[0]), exc)

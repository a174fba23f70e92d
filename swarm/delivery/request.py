"""The parent's view of a task: what its process's end means, where Celery would end the worker."""

from __future__ import annotations

from typing import Any

from billiard.exceptions import WorkerLostError
from celery.utils.serialization import get_pickled_exception
from celery.worker import request as celery_request
from celery.worker import state
from kombu.utils.encoding import safe_repr

from swarm import logs
from swarm.delivery.holder import worker_holder


class Request(celery_request.Request):
    """Celery's request, which counts the death of a pool process against the message.

    And which ends a task that ran out of memory as any other failure: Celery ends the worker. What
    Celery logs of the task in the parent has its id.
    """

    def revoked(self) -> bool:
        with logs.of_task(self.id):
            return bool(super().revoked())

    def on_timeout(self, soft: bool, timeout: float) -> None:
        with logs.of_task(self.id):
            super().on_timeout(soft, timeout)

    def on_failure(
        self,
        exc_info: Any,
        send_failed_event: bool = True,
        return_ok: bool = False,
    ) -> Any:
        exc = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(exc, MemoryError):
            return self._fail(exc, exc_info, send_failed_event=send_failed_event)
        if isinstance(exc, WorkerLostError | SystemExit | KeyboardInterrupt):
            tag = self._message.delivery_tag
            worker_holder().deaths[tag] = f"pool process of {self._hostname}: {exc}"
            worker_holder().on_death(self.task.name)
        with logs.of_task(self.id):
            return super().on_failure(exc_info, send_failed_event, return_ok)

    def _fail(self, exc: MemoryError, exc_info: Any, *, send_failed_event: bool) -> None:
        state.task_ready(self)
        # Its process may have lacked the memory for that; a second commit changes nothing.
        self.task.backend.mark_as_failure(
            self.id, exc, request=self._context, store_result=self.store_errors
        )
        self.acknowledge()
        if send_failed_event:
            self.send_event(
                "task-failed",
                exception=safe_repr(get_pickled_exception(exc_info.exception)),
                traceback=exc_info.traceback,
            )

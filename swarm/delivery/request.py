"""The parent's view of a task: tells a death of its process from other reasons to requeue."""

from __future__ import annotations

from typing import Any

from billiard.exceptions import WorkerLostError
from celery.worker import request as celery_request

from swarm.delivery.holder import worker_holder


class Request(celery_request.Request):
    """Celery's request, which counts the death of a pool process against the message."""

    def on_failure(
        self,
        exc_info: Any,
        send_failed_event: bool = True,
        return_ok: bool = False,
    ) -> Any:
        exc = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(exc, WorkerLostError | SystemExit | KeyboardInterrupt):
            tag = self._message.delivery_tag
            worker_holder().deaths[tag] = f"pool process of {self._hostname}: {exc}"
        return super().on_failure(exc_info, send_failed_event, return_ok)

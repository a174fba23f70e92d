"""The result backend: Celery's Redis backend without a subscription at submit."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend


class ResultBackend(RedisBackend):
    """Stores results as stock Celery does.

    Stock subscribes to a task's channel before the task is published, so that submitting needs
    a second connection and three more commands, and hangs on it when Redis is away. Here the
    subscription waits until somebody waits for the result.
    """

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Called by `apply_async` before it publishes."""

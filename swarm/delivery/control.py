"""Revoking without remote control: a mark in Redis that a worker sees when it takes the task."""

from __future__ import annotations

import logging
from typing import Any

import redis
from celery.app import control as celery_control

from swarm.delivery import keys

log = logging.getLogger(__name__)

#: Seconds for which a revoked id is remembered.
REVOKED_S = 24 * 3600


class Control(celery_control.Control):
    """Celery's control, of which `revoke` does not need a listening worker."""

    def broadcast(self, *args: Any, reply: bool = False, **kwargs: Any) -> Any:
        """Speak to workers only where they listen, instead of waiting for answers in vain."""
        if self.app.conf.worker_enable_remote_control:
            return super().broadcast(*args, reply=reply, **kwargs)
        return [] if reply else None

    def revoke(
        self,
        task_id: str | list[str],
        destination: Any = None,
        terminate: bool = False,
        signal: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keep tasks from being started. Those that run go on, whatever `terminate` says.

        Raises:
            redis.RedisError: a broker where it may be is away.
        """
        if terminate:
            log.warning("revoke does not stop a task that runs; nobody listens for it")
        for one in [task_id] if isinstance(task_id, str) else list(task_id):
            self._revoke(one)

    def _revoke(self, task_id: str) -> None:
        """Mark it wherever it may be."""
        submission = getattr(self.app, "submission", None)
        if submission is None:
            backends = [self.app.backend]
        else:
            backends = [submission.backend(name) for name in submission.places(task_id)]
        away: Exception | None = None
        for backend in backends:
            try:
                backend.client.set(keys.revoked(task_id), "1", ex=REVOKED_S)
            except redis.RedisError as exc:
                away = away or exc
        if away is not None:
            raise away

"""Thin Celery tasks, one module a worker type: parse the payload, do it, return plain values."""

from __future__ import annotations

from typing import Any

#: Options of every task. Jitter keeps tasks that failed together from coming back together.
RETRY: dict[str, Any] = {
    "retry_backoff": 2,
    "retry_backoff_max": 60,
    "retry_jitter": True,
    # A task whose process died counts it as an attempt, or one that kills every process it meets
    # would be handed out without end (celery/worker/request.py, on_failure).
    "retry_on_worker_lost": True,
    "default_retry_delay": 2,
}

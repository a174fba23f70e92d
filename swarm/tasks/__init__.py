"""Thin Celery tasks, one module a worker type: parse the payload, do it, return plain values."""

from __future__ import annotations

from typing import Any

#: Options of every task. Jitter keeps tasks that failed together from coming back together.
RETRY: dict[str, Any] = {
    "retry_backoff": 2,
    "retry_backoff_max": 60,
    "retry_jitter": True,
}

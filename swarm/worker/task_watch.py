"""What a process notes at the start and the end of each task: whose lines follow, how long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass
from typing import Any

from celery import signals

from swarm import logs
from swarm.worker.telemetry import Telemetry

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Begun:
    at: float
    logged: Token[str]


class TaskWatch:
    """Celery keeps receivers weakly: whoever connects a watch must keep what `connect` returns."""

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._begun: dict[str, _Begun] = {}

    def connect(self) -> list[Callable[..., None]]:
        """The receivers."""
        signals.task_prerun.connect(self._begin)
        signals.task_postrun.connect(self._end)
        return [self._begin, self._end]

    def _begin(self, task_id: str = "", **_: object) -> None:
        self._begun[task_id] = _Begun(time.monotonic(), logs.begin_task(task_id))

    def _end(
        self, task_id: str = "", task: Any = None, state: str | None = None, **_: object
    ) -> None:
        begun = self._begun.pop(task_id)
        seconds = time.monotonic() - begun.at
        outcome = (state or "failure").lower()
        self._telemetry.task_ended(task.name, outcome, seconds)
        log.info("%s[%s] %s", task.name, task_id, outcome, extra={"fields": {"seconds": seconds}})
        logs.end_task(begun.logged)

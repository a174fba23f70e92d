"""What a process notes at the start and the end of each task: whose lines follow, how long."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass
from typing import Any

from billiard.exceptions import TimeLimitExceeded
from celery import signals
from celery.exceptions import Retry

from swarm import logs
from swarm.browse.errors import JobError
from swarm.delivery.message import waited_s
from swarm.worker.telemetry import Telemetry

log = logging.getLogger(__name__)

_REASON_CHARACTERS = 300


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
        signals.task_revoked.connect(self._revoked)
        signals.task_failure.connect(self._failed)
        return [self._begin, self._end, self._revoked, self._failed]

    def _begin(self, task_id: str = "", **_: object) -> None:
        self._begun[task_id] = _Begun(time.monotonic(), logs.begin_task(task_id))

    def _end(
        self,
        task_id: str = "",
        task: Any = None,
        retval: Any = None,
        state: str | None = None,
        **_: object,
    ) -> None:
        begun = self._begun.pop(task_id, None)
        seconds = 0.0 if begun is None else time.monotonic() - begun.at
        outcome = (state or "failure").lower()
        code = "" if outcome == "success" else error_code(retval)
        self._telemetry.task_ended(task.name, outcome, seconds, code, waited_s(task.request))
        fields = {"seconds": seconds, **_reason(retval)}
        # Of anything but a job's error Celery itself shows where it was raised.
        level = logging.WARNING if outcome == "failure" else logging.INFO
        log.log(level, "%s[%s] %s", task.name, task_id, outcome, extra={"fields": fields})
        if begun is not None:
            logs.end_task(begun.logged)

    def _revoked(self, sender: Any = None, expired: Any = None, **_: object) -> None:
        self._telemetry.task_ended(sender.name, "expired" if expired else "revoked", 0.0)

    def _failed(self, sender: Any = None, exception: Any = None, **_: object) -> None:
        """In the parent, of a task whose process was killed: its end was told by nobody."""
        if isinstance(exception, TimeLimitExceeded):
            self._telemetry.task_ended(sender.name, "failure", 0.0, "TIME_LIMIT")


def error_code(error: Any) -> str:
    """The code of a job's error, of which there is a closed list; else OTHER."""
    cause = _cause(error)
    return str(cause.code) if isinstance(cause, JobError) else "OTHER"


def _reason(retval: Any) -> dict[str, str]:
    """What a job failed with, in one line: pages choose some of the words."""
    cause = _cause(retval)
    if not isinstance(cause, JobError):
        return {}
    reason = " ".join(cause.message.split())[:_REASON_CHARACTERS]
    return {"code": str(cause.code), "stage": cause.stage, "reason": reason}


def _cause(error: Any) -> Any:
    return error.exc if isinstance(error, Retry) else error

"""Why a browser job failed: one closed list of codes, and whether trying again may help."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from swarm.errors import PermanentError, TransientError


class ErrorCode(StrEnum):
    """Why a job failed. The list is closed: callers may branch on it."""

    INVALID = "INVALID"
    URL_BLOCKED = "URL_BLOCKED"
    DNS = "DNS"
    NAV_TIMEOUT = "NAV_TIMEOUT"
    NAVIGATION = "NAVIGATION"
    HTTP_STATUS = "HTTP_STATUS"
    SELECTOR_TIMEOUT = "SELECTOR_TIMEOUT"
    ACTION_FAILED = "ACTION_FAILED"
    DEADLINE = "DEADLINE"
    PAGE_CRASH = "PAGE_CRASH"
    BROWSER_LOST = "BROWSER_LOST"
    RESOURCE_LIMIT = "RESOURCE_LIMIT"
    CANCELLED = "CANCELLED"

    @property
    def retryable(self) -> bool:
        return self in {
            ErrorCode.DNS,
            ErrorCode.NAV_TIMEOUT,
            ErrorCode.NAVIGATION,
            ErrorCode.PAGE_CRASH,
            ErrorCode.BROWSER_LOST,
        }


class JobError(Exception):
    """A job failed; `stage` is what it was at, `result` what is known of it all the same."""

    def __init__(
        self, code: str, message: str, stage: str, result: Mapping[str, Any] | None = None
    ) -> None:
        # Celery stores `args` as JSON and builds the exception from them again: hence positional
        # parameters, and a code that may come as a plain string.
        super().__init__(str(code), message, stage, result)
        self.code = ErrorCode(code)
        self.message = message
        self.stage = stage
        self.result = result

    def __str__(self) -> str:
        return f"{self.code} in {self.stage}: {self.message}"

    def with_result(self, result: Mapping[str, Any]) -> JobError:
        """The same error, with the job's result as far as there is one.

        Its message is the result's, which has no secrets.
        """
        message = (result.get("error") or {}).get("message", self.message)
        return type(self)(self.code, message, self.stage, result)


class TransientJobError(JobError, TransientError):
    """It may pass: Celery retries it with backoff."""


class PermanentJobError(JobError, PermanentError):
    """It will fail again."""


def job_error(
    code: ErrorCode, message: str, *, stage: str, retryable: bool | None = None
) -> JobError:
    """The error of the class that decides whether it is retried; by its code when not given."""
    retry = code.retryable if retryable is None else retryable
    kind = TransientJobError if retry else PermanentJobError
    return kind(code, message, stage)

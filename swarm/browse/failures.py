"""Tells Playwright's errors apart. It has one error class, so here, and only here, texts decide."""

from __future__ import annotations

import logging

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from swarm.browse.artifacts import ArtifactRefusedError, ArtifactStoreAwayError
from swarm.browse.errors import ErrorCode, JobError, job_error

log = logging.getLogger(__name__)

NAVIGATION_STAGE = "navigation"
#: Until the page is open: nothing of the job has run, and its own browser is what failed.
LAUNCH_STAGE = "launch"

# Playwright 1.65, packages/playwright-core/src/server: text it raises when the browser process,
# or the driver between us and it, is gone.
_BROWSER_LOST_TEXTS = (
    "has been closed",
    "Browser closed",
    "Connection closed",
    "browser has disconnected",
    "Browser has been disconnected",
)
_PAGE_CRASH_TEXTS = ("Page crashed", "Target crashed")
#: Where no payload may lead, nor a redirect: Chromium itself goes there from no web page.
_BLOCKED_TEXTS = (
    "net::ERR_UNSAFE_REDIRECT",
    "net::ERR_INVALID_REDIRECT",
    "net::ERR_UNSAFE_PORT",
    "net::ERR_DISALLOWED_URL_SCHEME",
    "net::ERR_UNKNOWN_URL_SCHEME",
)
# The second is Node's, where the driver finds no room for what it records.
_TOO_MUCH_TEXTS = ("net::ERR_TOO_MANY_REDIRECTS", "ENOSPC")
#: Failures to open a page that no retry mends.
_LASTING_TEXTS = ("net::ERR_CERT_", "net::ERR_SSL_", "Download is starting")
#: A page chooses the words of its own errors.
_MESSAGE_CHARACTERS = 1000
_DNS_TEXTS = ("net::ERR_NAME_NOT_RESOLVED", "net::ERR_NAME_RESOLUTION_FAILED")
#: What a store of artifacts raises when it takes nothing.
STORE_ERRORS = (ArtifactRefusedError, ArtifactStoreAwayError)


def classify(error: PlaywrightError, *, stage: str) -> JobError:
    """The job's error for what Playwright raised during `stage`."""
    first_line = (error.message.splitlines() or ["no message"])[0][:_MESSAGE_CHARACTERS]

    def has(texts: tuple[str, ...]) -> bool:
        return any(text in error.message for text in texts)

    if has(_PAGE_CRASH_TEXTS):
        code = ErrorCode.PAGE_CRASH
    elif has(_BROWSER_LOST_TEXTS) or stage == LAUNCH_STAGE:
        code = ErrorCode.BROWSER_LOST
    elif isinstance(error, PlaywrightTimeoutError):
        navigating = stage == NAVIGATION_STAGE
        code = ErrorCode.NAV_TIMEOUT if navigating else ErrorCode.SELECTOR_TIMEOUT
    elif has(_DNS_TEXTS):
        code = ErrorCode.DNS
    elif has(_BLOCKED_TEXTS):
        code = ErrorCode.URL_BLOCKED
    elif has(_TOO_MUCH_TEXTS):
        code = ErrorCode.RESOURCE_LIMIT
    elif stage == NAVIGATION_STAGE:
        code = ErrorCode.NAVIGATION
    else:
        code = ErrorCode.ACTION_FAILED
    return job_error(
        code, first_line, stage=stage, retryable=False if has(_LASTING_TEXTS) else None
    )


def unforeseen(error: Exception, *, stage: str) -> JobError:
    """The job's error for what nothing above foresees, such as a value that no JSON can hold."""
    log.warning("unforeseen failure", extra={"fields": {"stage": stage}}, exc_info=error)
    message = f"{type(error).__name__}: {error}"[:_MESSAGE_CHARACTERS]
    return job_error(ErrorCode.ACTION_FAILED, message, stage=stage)


def store_failure(error: ArtifactRefusedError | ArtifactStoreAwayError, *, stage: str) -> JobError:
    """The job's error when its artifact was not stored; a store that is away may come back."""
    return job_error(
        ErrorCode.RESOURCE_LIMIT,
        f"artifact store: {error}",
        stage=stage,
        retryable=isinstance(error, ArtifactStoreAwayError),
    )

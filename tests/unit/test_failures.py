"""Playwright's texts: the only place where a message decides, so a test for each."""

from __future__ import annotations

import pytest
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from swarm.browse.errors import ErrorCode, JobError, PermanentJobError, TransientJobError
from swarm.browse.failures import LAUNCH_STAGE, NAVIGATION_STAGE, classify, unforeseen


@pytest.mark.parametrize(
    ("message", "stage", "code"),
    [
        ("Page.goto: Page crashed", NAVIGATION_STAGE, ErrorCode.PAGE_CRASH),
        ("Page.screenshot: Target crashed", "screenshot", ErrorCode.PAGE_CRASH),
        (
            "Page.goto: Target page, context or browser has been closed",
            NAVIGATION_STAGE,
            ErrorCode.BROWSER_LOST,
        ),
        ("Browser.new_context: Browser closed.", LAUNCH_STAGE, ErrorCode.BROWSER_LOST),
        ("Connection closed while reading from the driver", "text", ErrorCode.BROWSER_LOST),
        ("Page.content: browser has disconnected", "html", ErrorCode.BROWSER_LOST),
        ("Browser has been disconnected", "html", ErrorCode.BROWSER_LOST),
        ("Page.goto: net::ERR_NAME_NOT_RESOLVED at http://x/", NAVIGATION_STAGE, ErrorCode.DNS),
        ("Page.goto: net::ERR_NAME_RESOLUTION_FAILED", NAVIGATION_STAGE, ErrorCode.DNS),
        ("Page.goto: net::ERR_CONNECTION_REFUSED", NAVIGATION_STAGE, ErrorCode.NAVIGATION),
        ("Page.goto: net::ERR_ABORTED", NAVIGATION_STAGE, ErrorCode.NAVIGATION),
        ("Page.goto: net::ERR_UNSAFE_REDIRECT", NAVIGATION_STAGE, ErrorCode.URL_BLOCKED),
        ("Page.goto: net::ERR_INVALID_REDIRECT", NAVIGATION_STAGE, ErrorCode.URL_BLOCKED),
        ("Page.goto: net::ERR_UNSAFE_PORT", NAVIGATION_STAGE, ErrorCode.URL_BLOCKED),
        ("Page.goto: net::ERR_DISALLOWED_URL_SCHEME", NAVIGATION_STAGE, ErrorCode.URL_BLOCKED),
        ("Page.goto: net::ERR_UNKNOWN_URL_SCHEME", NAVIGATION_STAGE, ErrorCode.URL_BLOCKED),
        ("Page.goto: net::ERR_TOO_MANY_REDIRECTS", NAVIGATION_STAGE, ErrorCode.RESOURCE_LIMIT),
        (
            "Tracing.stop: ENOSPC: no space left on device, write",
            "recordings",
            ErrorCode.RESOURCE_LIMIT,
        ),
        ("Unexpected token in selector", "text", ErrorCode.ACTION_FAILED),
        # A browser that cannot be launched may be launched by another worker, or a moment later.
        ("BrowserType.launch: spawn ENOMEM", LAUNCH_STAGE, ErrorCode.BROWSER_LOST),
    ],
)
def test_a_text_has_one_code(message: str, stage: str, code: ErrorCode) -> None:
    error = classify(PlaywrightError(message), stage=stage)
    assert error.code is code
    assert error.stage == stage
    assert error.message == message


@pytest.mark.parametrize(
    ("stage", "code"),
    [
        (NAVIGATION_STAGE, ErrorCode.NAV_TIMEOUT),
        ("text", ErrorCode.SELECTOR_TIMEOUT),
        (LAUNCH_STAGE, ErrorCode.BROWSER_LOST),
    ],
)
def test_a_timeout_is_told_by_its_stage(stage: str, code: ErrorCode) -> None:
    error = PlaywrightTimeoutError("Timeout 30000ms exceeded.\nCall log:\n  - waiting")
    classified = classify(error, stage=stage)
    assert classified.code is code
    assert classified.message == "Timeout 30000ms exceeded."


def test_a_timeout_because_the_page_crashed_is_a_crash() -> None:
    error = PlaywrightTimeoutError("Timeout 100ms exceeded: Page crashed")
    assert classify(error, stage="text").code is ErrorCode.PAGE_CRASH


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("Page.goto: net::ERR_CERT_AUTHORITY_INVALID", PermanentJobError),
        ("Page.goto: net::ERR_SSL_PROTOCOL_ERROR", PermanentJobError),
        ("Page.goto: Download is starting", PermanentJobError),
        ("Page.goto: net::ERR_CONNECTION_RESET", TransientJobError),
    ],
)
def test_what_no_retry_mends_is_not_retried(message: str, kind: type[JobError]) -> None:
    error = classify(PlaywrightError(message), stage=NAVIGATION_STAGE)
    assert error.code is ErrorCode.NAVIGATION
    assert isinstance(error, kind)


def test_a_page_does_not_choose_how_long_its_error_is() -> None:
    error = classify(PlaywrightError("x" * 1_000_000), stage="text")
    assert len(error.message) == 1000
    assert len(unforeseen(ValueError("x" * 1_000_000), stage="text").message) == 1000


def test_an_error_without_words_has_a_message() -> None:
    assert classify(PlaywrightError(""), stage="text").message == "no message"

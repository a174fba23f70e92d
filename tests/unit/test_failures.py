"""Playwright's texts: the only place where a message decides, so a test for each."""

from __future__ import annotations

import pytest
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from swarm.browse.errors import ErrorCode
from swarm.browse.failures import LAUNCH_STAGE, NAVIGATION_STAGE, classify


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


def test_an_error_without_words_has_a_message() -> None:
    assert classify(PlaywrightError(""), stage="text").message == "no message"

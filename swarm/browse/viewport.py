"""A picture of the viewport by one call of the browser's own protocol.

Playwright's own takes five calls, and gives a clip, for which Chromium lays out and draws the page
twice more: together a fifth of a small job's processor time (docs/explanation/performance.md). What
it does beside that (hide the caret, wait for fonts, scale) is needed by some pages only: where it
is, there is no picture here.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Any

from playwright.async_api import Page
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from swarm.browse.payload import BrowserJob

# Fonts of the page itself, as Playwright has it. A caret blinks only where something has the focus,
# and in a document that can be edited as a whole.
_IS_PLAIN = """document.fonts.ready.then(() => document.designMode !== 'on'
  && (document.activeElement === null
    || document.activeElement === document.body && !document.body.isContentEditable))"""


def is_plain(job: BrowserJob) -> bool:
    """Whether a picture has one pixel for each CSS pixel, and nobody is to see how it was taken."""
    context = job.context
    unscaled = context.viewport is None or context.viewport.scale == 1
    # Without scripts the page cannot be asked what it is like.
    return unscaled and context.device is None and context.javascript and job.capture.trace == "off"


async def capture(
    page: Page, *, encoding: str, quality: int | None, timeout_ms: float
) -> bytes | None:
    """What the viewport shows as PNG or JPEG; None for a page that Playwright has to picture.

    Raises:
        playwright.async_api.TimeoutError: the page did not answer in time.
        playwright.async_api.Error: it crashed, or is closed.
    """
    how: dict[str, Any] = {"format": encoding}
    if encoding == "jpeg":
        how["quality"] = 80 if quality is None else quality
    try:
        async with asyncio.timeout(timeout_ms / 1000):
            protocol = await page.context.new_cdp_session(page)
            asking = {"expression": _IS_PLAIN, "awaitPromise": True, "returnByValue": True}
            answer = await protocol.send("Runtime.evaluate", asking)
            if answer["result"].get("value") is not True:
                return None
            answer = await protocol.send("Page.captureScreenshot", how)
    except TimeoutError as exc:
        raise PlaywrightTimeoutError(f"Timeout {timeout_ms:g}ms exceeded.") from exc
    return base64.b64decode(answer["data"])

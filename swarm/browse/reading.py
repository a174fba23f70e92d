"""Reads a page: by the DevTools protocol where that tells the same, and else by Playwright.

Whatever fails on the short way is asked again on the long one, whose waiting and whose errors are
the ones that hold.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from swarm.browse.devtools import DevTools
from swarm.browse.payload import BrowserJob

# Selectors that mean the same to a browser as to Playwright, which also has `text=...`, `//...`,
# `... >> ...` and pseudo-classes of its own: names, classes, ids, attributes, combinators.
_ATTRIBUTE = r"""\[[\w-]+(?:[~|^$*]?=(?:"[^"\\]*"|'[^'\\]*'))?\]"""
_CSS = re.compile(rf"""(?!\s*\.\.)(?!.*>\s*>)(?:[\w\s.#*>+~,-]|{_ATTRIBUTE})+""", re.ASCII)
# Playwright looks into shadow trees as well.
_NO_SHADOWS = "for (const e of document.querySelectorAll('*')) if (e.shadowRoot) return null;"
_COUNT = f"selector => {{ {_NO_SHADOWS} return document.querySelectorAll(selector).length; }}"
_TEXT = f"""selector => {{
  {_NO_SHADOWS} return document.querySelector(selector)?.innerText ?? null; }}"""
_CONTENT = """() => [document.doctype && new XMLSerializer().serializeToString(document.doctype),
  document.documentElement?.outerHTML].join('')"""
# A caret blinks only where something has the focus, and in a document that can be edited as a
# whole; fonts are those of the page itself, as Playwright has it.
_IS_PLAIN = """() => document.fonts.ready.then(() => document.designMode !== 'on'
  && (document.activeElement === null
    || document.activeElement === document.body && !document.body.isContentEditable))"""
#: Playwright's, where nothing is said.
_JPEG_QUALITY = 80
# Of a page that was opened just now; Chromium, content/browser/devtools/protocol/page_handler.cc.
_NOT_DRAWN_TEXTS = ("Unable to capture screenshot", "Not attached to an active page")
#: Seconds between two pictures of a page until it is drawn.
_UNTIL_DRAWN_S = (0.02, 0.05, 0.1, 0.2, 0.4)

_T = TypeVar("_T")


class Reader:
    """What a page says and shows.

    All methods raise `playwright.async_api.Error` for a page that crashed, is closed or has not
    what is asked for, and its TimeoutError after `timeout_ms`.
    """

    def __init__(self, page: Page, job: BrowserJob) -> None:
        self._page = page
        # In a trace stands only what Playwright does.
        self._devtools = DevTools(page) if job.capture.trace == "off" else None
        context = job.context
        unscaled = context.viewport is None or context.viewport.scale == 1
        #: Whether a picture has one pixel for each CSS pixel.
        self._unscaled = unscaled and context.device is None

    async def title(self) -> str:
        title = await self._ask("() => document.title")
        return title if isinstance(title, str) else await self._page.title()

    async def content(self) -> str:
        """The markup as it is now, with its doctype."""
        content = await self._ask(_CONTENT)
        return content if isinstance(content, str) else await self._page.content()

    async def evaluate(self, function: str, argument: Any = None) -> Any:
        """What a function gives that changes nothing in the page, and never gives null."""
        value = await self._ask(function, argument)
        return value if value is not None else await self._page.evaluate(function, argument)

    async def count(self, selector: str) -> int:
        """How many elements match."""
        count = await self._ask(_COUNT, selector) if _CSS.fullmatch(selector) else None
        return count if isinstance(count, int) else await self._page.locator(selector).count()

    async def inner_text(self, selector: str, *, timeout_ms: float) -> str:
        """Of the first element that matches, once there is one."""
        if _CSS.fullmatch(selector):
            text = await self._ask(_TEXT, selector, timeout_ms=timeout_ms)
            if isinstance(text, str):
                return text
        return await self._page.locator(selector).first.inner_text(timeout=timeout_ms)

    async def viewport(
        self, *, encoding: Literal["png", "jpeg"], quality: int | None, timeout_ms: float
    ) -> bytes:
        """A picture of what a visitor sees.

        Playwright's own takes five calls, and Chromium's slow encoder. What it does beside that
        (hide the caret, scale) few pages need.
        """
        if self._unscaled and await self._ask(_IS_PLAIN, timeout_ms=timeout_ms) is True:
            picture = await self._picture(encoding, quality, timeout_ms=timeout_ms)
            if picture is not None:
                return picture
        return await once_drawn(
            lambda: self._page.screenshot(type=encoding, quality=quality, timeout=timeout_ms)
        )

    async def _ask(
        self, function: str, *arguments: Any, timeout_ms: float | None = None
    ) -> Any | None:
        if self._devtools is None:
            return None
        return await _tried(self._devtools.evaluate(function, *arguments), timeout_ms)

    async def _picture(
        self, encoding: str, quality: int | None, *, timeout_ms: float
    ) -> bytes | None:
        if self._devtools is None:
            return None
        if encoding == "jpeg" and quality is None:
            quality = _JPEG_QUALITY
        take = partial(self._devtools.screenshot, encoding=encoding, quality=quality)
        return await _tried(once_drawn(take), timeout_ms)


async def once_drawn(take: Callable[[], Awaitable[bytes]]) -> bytes:
    """The picture that `take` takes, and takes again if there is none yet.

    Chromium has none of a page that it has not drawn since it was opened, and says so at once.

    Raises:
        playwright.async_api.Error: anything else that `take` fails with, or this for too long.
    """
    for pause_s in _UNTIL_DRAWN_S:
        try:
            return await take()
        except PlaywrightError as exc:
            if not any(text in exc.message for text in _NOT_DRAWN_TEXTS):
                raise
        await asyncio.sleep(pause_s)
    return await take()


async def _tried(calling: Awaitable[_T], timeout_ms: float | None) -> _T | None:
    """What a call gives; None if it fails, for Playwright to say how.

    Raises:
        playwright.async_api.TimeoutError: it gave nothing in time.
    """
    try:
        async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1000):
            with suppress(PlaywrightError):
                return await calling
    except TimeoutError as exc:
        raise PlaywrightTimeoutError(f"Timeout {timeout_ms:g}ms exceeded.") from exc
    return None

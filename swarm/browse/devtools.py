"""One page by Chromium's own protocol, past the scripts that Playwright puts into a page.

Playwright looks at a page from a world of its own, for which Chromium makes a second JavaScript
context and compiles a library of selectors: more than a quarter of a small job's processor time
(docs/explanation/performance.md). Whoever only reads a page needs neither.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

from playwright.async_api import CDPSession, Page
from playwright.async_api import Error as PlaywrightError


class DevTools:
    """Lives as long as the page; attached to it when first asked."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._session: CDPSession | None = None
        self._crashed = asyncio.Event()
        page.on("crash", lambda _: self._crashed.set())

    async def evaluate(self, function: str, *arguments: Any) -> Any:
        """What a function of the page's own world returns or promises; arguments and value as JSON.

        Raises:
            playwright.async_api.Error: it threw, or the page crashed or went on to another.
        """
        words = ", ".join(json.dumps(argument) for argument in arguments)
        answer = await self._send(
            "Runtime.evaluate",
            {"expression": f"({function})({words})", "awaitPromise": True, "returnByValue": True},
        )
        if "exceptionDetails" in answer:
            thrown = answer["exceptionDetails"]
            raise PlaywrightError(thrown.get("exception", {}).get("description", thrown["text"]))
        return answer["result"].get("value")

    async def screenshot(self, *, encoding: str, quality: int | None) -> bytes:
        """What the page's surface shows, as PNG, which is quickly made and not small, or as JPEG.

        Raises:
            playwright.async_api.Error: the page has not been drawn yet, crashed, or is closed.
        """
        how: dict[str, Any] = {"format": encoding, "optimizeForSpeed": True}
        if quality is not None:
            how["quality"] = quality
        answer = await self._send("Page.captureScreenshot", how)
        return base64.b64decode(answer["data"])

    async def _send(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        calling = asyncio.ensure_future(self._call(method, parameters))
        # Chromium answers nothing more for a page that crashed, and nobody tells who waits for it.
        crash = asyncio.ensure_future(self._crashed.wait())
        try:
            await asyncio.wait([calling, crash], return_when=asyncio.FIRST_COMPLETED)
            if not calling.done():
                raise PlaywrightError("Target crashed")
            return calling.result()
        finally:
            calling.cancel()
            crash.cancel()

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if self._session is None:
            self._session = await self._page.context.new_cdp_session(self._page)
        answer: dict[str, Any] = await self._session.send(method, parameters)
        return answer

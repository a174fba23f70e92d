"""A browser whose pages are read on the short way, with or without Playwright to fall back on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Self
from unittest import mock

import pytest
from playwright.async_api import Browser, Page, async_playwright

from swarm.browse.chromium import ARGUMENTS
from swarm.browse.payload import BrowserJob, parse_browser_job
from swarm.browse.reading import Reader
from tests.programs import CHROMIUM, need

Use = Callable[[Page], Coroutine[Any, Any, Any]]


class PageStage:
    """One browser for all tests, and the loop that it runs on."""

    def __init__(self) -> None:
        need(CHROMIUM, "chromium-headless-shell")
        self._runner = asyncio.Runner()
        self._entered = AsyncExitStack()
        self._browser = self._runner.run(self._launch())

    async def _launch(self) -> Browser:
        playwright = await self._entered.enter_async_context(async_playwright())
        return await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))

    def on_page(self, markup: str, use: Use, **context_options: Any) -> Any:
        """What `use` gives of a page with this markup."""
        return self._runner.run(self._use(markup, use, context_options))

    async def _use(self, markup: str, use: Use, context_options: dict[str, Any]) -> Any:
        options = {"viewport": {"width": 1280, "height": 800}} | context_options
        page = await self._browser.new_page(**options)
        try:
            await page.set_content(f"<!doctype html>{markup}")
            return await use(page)
        finally:
            await page.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._runner.run(self._entered.aclose())
        self._runner.close()


def job(**sections: Any) -> BrowserJob:
    return parse_browser_job(
        {"url": "http://127.0.0.1/", "actions": [{"kind": "text"}], **sections}
    )


class Short(Reader):
    """Has nobody else to ask: what is not read on the short way is an error."""

    def __init__(self, page: Page, **sections: Any) -> None:
        super().__init__(page, job(**sections))
        nobody = mock.Mock(spec=[])
        self._page = nobody

    async def png(self, timeout_ms: float = 10_000) -> bytes:
        return await self.viewport(encoding="png", quality=None, timeout_ms=timeout_ms)


#: What a reader raises that has nobody else to ask.
LEFT_TO_PLAYWRIGHT = pytest.raises(AttributeError, match=r"screenshot|locator|title|content")

"""Events that a page makes without end, and when they are too many.

Each costs the driver and the engine's loop a fraction of a millisecond, which the pages of others
lack: a page that floods is given up while the rest can still be worked off.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from playwright.async_api import BrowserContext, Page, WebError

#: Shops and newspapers make a few hundred requests, and throw a few dozen errors.
MAX_REQUESTS, MAX_REQUESTS_A_SECOND = 5000, 1000
MAX_ERRORS = 500
MAX_WINDOWS = 50


class Meter:
    """Counts events of one kind."""

    def __init__(self, most: int, most_a_second: int | None = None) -> None:
        self.count = 0
        self._most = most
        self._most_a_second = most if most_a_second is None else most_a_second
        self._second, self._in_second = 0, 0

    def add(self) -> bool:
        """Count one; whether there are too many, in all or within a second."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self.count += 1
        self._in_second += 1
        return self.count > self._most or self._in_second > self._most_a_second


class Floods:
    """Windows and errors of one page. `on_excess` is called with what was too much."""

    def __init__(self, on_excess: Callable[[str], None]) -> None:
        self._on_excess = on_excess
        self._windows, self._errors = Meter(MAX_WINDOWS), Meter(MAX_ERRORS)

    def watch(self, context: BrowserContext) -> None:
        """Once the job's own page is open."""
        context.on("page", self._on_window)
        context.on("weberror", self._on_error)

    def _on_window(self, page: Page) -> None:
        if self._windows.add():
            self._on_excess(f"the page opened more than {MAX_WINDOWS} windows")
        # Nobody looks at what it opens beside itself.
        closing = asyncio.ensure_future(page.close())
        # It may be gone before it is closed.
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _on_error(self, _error: WebError) -> None:
        if self._errors.add():
            self._on_excess(f"the page threw more than {MAX_ERRORS} errors")

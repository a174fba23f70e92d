"""Launches browsers on one driver, which is started when needed and replaced when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from playwright.async_api import Error as PlaywrightError

from swarm.browse.chromium import Chromium
from swarm.browse.driver import Driver
from swarm.settings import BrowserSettings

#: Seconds in which a driver that does not hang answers.
_ANSWER_S = 5.0


class Launcher:
    """Owns the driver.

    `is_in_use` says whether it has browsers; `on_hung` is called when it answers nothing, and is to
    kill it.
    """

    def __init__(
        self,
        settings: BrowserSettings,
        *,
        headed: bool,
        is_in_use: Callable[[], bool],
        on_hung: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._headed = headed
        self._is_in_use = is_in_use
        self._on_hung = on_hung
        self._lock = asyncio.Lock()
        self._driver: Driver | None = None

    async def launch(self, directory: Path) -> Chromium:
        """A browser that writes below `directory` only.

        Raises:
            playwright.async_api.Error: it does not start.
        """
        driver = await self._current()
        try:
            return await self._launch_on(driver, directory)
        except PlaywrightError:
            if self._is_in_use() and driver.lives:
                # The tasks on its other browser are not to lose it.
                raise
            # A driver that lost its pipe cannot launch anything: begin with a new one.
            if self._driver is driver:
                self._driver = None
            await driver.stop()
            return await self._launch_on(await self._current(), directory)

    def kill(self, *, wait_s: float = 0.0) -> int:
        """Kill the driver with its browsers; how many processes there were. Safe in any thread."""
        driver, self._driver = self._driver, None
        return driver.kill(wait_s=wait_s) if driver is not None else 0

    async def stop(self) -> None:
        """End the driver."""
        if self._driver is not None:
            await self._driver.stop()
        self._driver = None

    async def _current(self) -> Driver:
        # A successor is launched beside what tasks ask for: two drivers would be one too many.
        async with self._lock:
            if self._driver is not None and not await self._driver.answers(_ANSWER_S):
                self._on_hung()
            if self._driver is None:
                self._driver = await Driver.start()
            return self._driver

    async def _launch_on(self, driver: Driver, directory: Path) -> Chromium:
        launching = Chromium.launch(
            driver.playwright, self._settings, directory, headed=self._headed
        )
        try:
            # The driver keeps the time, unless it is frozen itself.
            return await asyncio.wait_for(launching, self._settings.launch_timeout_s + _ANSWER_S)
        except TimeoutError as exc:
            raise PlaywrightError("no answer of the driver") from exc

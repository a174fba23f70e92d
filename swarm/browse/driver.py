"""One Playwright driver: the process between us and the browsers."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path

import psutil
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Playwright, async_playwright

from swarm.browse.processes import child_processes, kill_tree

_STOP_S = 2.0
# Collects the driver's garbage; why is said there.
_HEAP = Path(__file__).resolve().with_name("driver_heap.cjs")


class Driver:
    """A running driver with its process, which Playwright does not tell."""

    def __init__(self, playwright: Playwright, processes: set[psutil.Process]) -> None:
        self.playwright = playwright
        self._processes = processes

    @classmethod
    async def start(cls) -> Driver:
        """Start one. Nothing else of this process may start children meanwhile.

        Raises:
            playwright.async_api.Error: it did not start.
        """
        # A release that is removed under a running worker must not cost it its driver.
        if _HEAP.exists():
            # Node reads a quoted word as JSON has it.
            _pass_to_node(f"--require={json.dumps(str(_HEAP))}")
        before = child_processes()
        playwright = await async_playwright().start()
        return cls(playwright, child_processes() - before)

    @property
    def lives(self) -> bool:
        """Whether its process has not ended."""
        with suppress(psutil.Error):
            return all(process.status() != psutil.STATUS_ZOMBIE for process in self._processes)
        return False

    async def answers(self, seconds: float) -> bool:
        """Whether it does what it is asked to; of a frozen one no call ever ends."""
        try:
            async with asyncio.timeout(seconds):
                # The one thing that it does without a browser.
                context = await self.playwright.request.new_context()
                await context.dispose()
        except (PlaywrightError, TimeoutError):
            return False
        return True

    async def stop(self) -> None:
        """End it with its browsers; one that does not answer is killed."""
        with suppress(PlaywrightError, TimeoutError):
            await asyncio.wait_for(self.playwright.stop(), _STOP_S)
        self.kill(wait_s=1.0)

    def kill(self, *, wait_s: float = 0.0) -> int:
        """End it and its browsers at once; how many processes there were.

        A killed child stays a zombie until it is waited for: here, or by asyncio a moment later.
        """
        killed = sum(kill_tree(process) for process in self._processes)
        if wait_s:
            psutil.wait_procs(self._processes, timeout=wait_s)
        return killed


def _pass_to_node(option: str) -> None:
    """Playwright's driver takes its environment from ours, and nothing else."""
    options = os.environ.get("NODE_OPTIONS", "")
    if option not in options:
        os.environ["NODE_OPTIONS"] = f"{options} {option}".strip()

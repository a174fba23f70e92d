"""One running Chromium: how it is launched, what it has served, how it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import psutil
from playwright.async_api import Browser, CDPSession, Playwright
from playwright.async_api import Error as PlaywrightError

from swarm.browse.contexts import devices_of
from swarm.browse.downloads import DownloadDirectory
from swarm.browse.processes import TreeUse, kill_tree, tree_use
from swarm.browse.result import BrowserUse
from swarm.settings import BrowserSettings

RetirementCause = Literal["uses", "age", "memory"]

#: Of every browser.
ARGUMENTS = (
    # Services that phone home; on a closed network each is a refused connection at every start.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
)
# What Chromium needs of the environment. The rest stays out of the reach of pages: it may hold
# the broker's password.
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ", "XDG_RUNTIME_DIR")


class Chromium:
    """A browser process with its count of uses and of contexts that are open or opening."""

    def __init__(
        self,
        browser: Browser,
        control: CDPSession,
        process: psutil.Process,
        directory: Path,
        devices: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.browser = browser
        self.directory = directory
        self.devices = devices
        self.downloads = DownloadDirectory(directory / "downloads")
        self._control = control
        self._process = process
        self._launched_at = time.monotonic()
        #: When one of its renderers was killed for its memory, monotonic.
        self.renderer_killed_at = float("-inf")
        self.uses = 0
        self.open_contexts = 0
        self.retired = False

    @classmethod
    async def launch(
        cls,
        playwright: Playwright,
        settings: BrowserSettings,
        directory: Path,
        *,
        headed: bool = False,
    ) -> Chromium:
        """Start Chromium within `settings.launch_timeout_s`; it writes below `directory` only.

        Raises:
            playwright.async_api.Error: no such executable, no sandbox to be had, no time left.
        """
        downloads = directory / "downloads"
        downloads.mkdir(exist_ok=True)
        browser = await playwright.chromium.launch(
            executable_path=str(settings.executable),
            headless=not headed,
            chromium_sandbox=settings.sandbox,
            args=list(ARGUMENTS),
            env=dict(_environment(os.environ)),
            timeout=settings.launch_timeout_s * 1000,
            downloads_path=downloads,
            # Signals are for our own process: it ends the browser when its tasks are done.
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
        control = await browser.new_browser_cdp_session()
        process = await _process_of(control)
        return cls(browser, control, process, directory, devices_of(playwright))

    @property
    def connected(self) -> bool:
        return self.browser.is_connected()

    @property
    def use(self) -> BrowserUse:
        return BrowserUse(version=self.browser.version, uses=self.uses, age_s=round(self.age_s, 3))

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._launched_at

    def memory(self) -> TreeUse:
        """What it and all its processes use."""
        return tree_use(self._process)

    async def probe(self) -> None:
        """Ask for a sign of life.

        Raises:
            playwright.async_api.Error: the browser is gone.
        """
        await self._control.send("Browser.getVersion")

    async def close(self) -> None:
        await self.browser.close()

    def kill(self) -> int:
        """End it whatever it does; how many processes it had."""
        return kill_tree(self._process)


async def _process_of(control: CDPSession) -> psutil.Process:
    """The browser's own process, which Playwright does not tell.

    Raises:
        playwright.async_api.Error: it is gone already.
    """
    answer = await control.send("SystemInfo.getProcessInfo")
    pid = next(int(entry["id"]) for entry in answer["processInfo"] if entry["type"] == "browser")
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess as exc:
        raise PlaywrightError(f"Browser closed: process {pid} is gone") from exc


def _environment(environ: Mapping[str, str]) -> dict[str, str | float | bool]:
    return {name: environ[name] for name in _ENVIRONMENT if name in environ}

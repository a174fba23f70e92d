"""One running Chromium: how it is launched, what it has served, when it is done."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import psutil
from playwright.async_api import Browser, Playwright

from swarm.browse.model import BrowserUse
from swarm.settings import BrowserSettings

_ARGUMENTS = (
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

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._launched_at = time.monotonic()
        self.uses = 0
        self.open_contexts = 0
        self.retired = False

    @classmethod
    async def launch(cls, playwright: Playwright, settings: BrowserSettings) -> Chromium:
        """Start a headless Chromium within `settings.launch_timeout_s`.

        Raises:
            playwright.async_api.Error: no such executable, no sandbox to be had, no time left.
        """
        browser = await playwright.chromium.launch(
            executable_path=str(settings.executable),
            headless=True,
            chromium_sandbox=settings.sandbox,
            args=list(_ARGUMENTS),
            env=dict(_environment(os.environ)),
            timeout=settings.launch_timeout_s * 1000,
            # Signals are for our own process: it ends the browser when its tasks are done.
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
        return cls(browser)

    @property
    def connected(self) -> bool:
        return self._browser.is_connected()

    @property
    def browser(self) -> Browser:
        return self._browser

    @property
    def use(self) -> BrowserUse:
        return BrowserUse(
            version=self._browser.version,
            uses=self.uses,
            age_s=round(time.monotonic() - self._launched_at, 3),
        )

    async def probe(self) -> None:
        """Do nothing but what every task needs first.

        Raises:
            playwright.async_api.Error: the browser is gone.
        """
        context = await self._browser.new_context()
        await context.close()

    async def close(self) -> None:
        await self._browser.close()


def _environment(environ: Mapping[str, str]) -> dict[str, str | float | bool]:
    return {name: environ[name] for name in _ENVIRONMENT if name in environ}


def kill_process_tree() -> int:
    """Kill every descendant of this process: the Playwright driver and its browsers.

    Returns the number of processes killed. A pool child has no other descendants.
    """
    descendants = psutil.Process().children(recursive=True)
    for process in descendants:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(descendants, timeout=5)
    return len(descendants)

"""One running Chromium: how it is launched, what it has served, how it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from playwright.async_api import Browser, CDPSession, Playwright
from playwright.async_api import Error as PlaywrightError

from swarm.browse import sandbox
from swarm.browse.contexts import devices_of
from swarm.browse.processes import TreeUse, kill_tree, tree_use
from swarm.browse.result import BrowserUse
from swarm.settings import BrowserSettings

#: Of every browser.
ARGUMENTS = (
    # Services that phone home; on a closed network each is a refused connection at every start.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    # The headless shell's: a window costs the driver forty calls, and a page may open them without
    # end. Nobody looks at them.
    "--block-new-web-contents",
    # WebRTC speaks UDP past every proxy, and tells pages the host's addresses.
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
)
# Playwright's own that harm here: without the protection a page that calls history.pushState
# without end keeps the browser's main thread, and so the pages of others, busy for ten seconds.
_UNWANTED_ARGUMENTS = ("--disable-ipc-flooding-protection",)
_PAGE_NICENESS = 5
#: Seconds after a renderer was killed for its memory in which a crash is taken for that.
_MEMORY_CRASH_S = 2.0
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
        self._control = control
        self._process = process
        self._working = [process, *_up_to_this_process(process)]
        self._launched_at = time.monotonic()
        self._memory_kills: list[float] = []
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
            swarm.browse.sandbox.SandboxMissingError: a renderer is not confined as
                `settings.sandbox` wants it.
            playwright.async_api.Error: no such executable, no sandbox to be had, no time left.
        """
        downloads = directory / "downloads"
        downloads.mkdir(exist_ok=True)
        browser = await playwright.chromium.launch(
            ignore_default_args=list(_UNWANTED_ARGUMENTS),
            executable_path=str(settings.executable),
            headless=not headed,
            chromium_sandbox=settings.sandbox,
            args=list(ARGUMENTS),
            env=dict(_environment(os.environ)),
            # Without a bypass Playwright sends through it what goes to loopback addresses, too.
            proxy={"server": settings.proxy} if settings.proxy else None,
            timeout=settings.launch_timeout_s * 1000,
            downloads_path=downloads,
            # Signals are for our own process: it ends the browser when its tasks are done.
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
        try:
            control = await browser.new_browser_cdp_session()
            process = await _process_of(control)
        except PlaywrightError:
            # Nobody else knows of it.
            with suppress(PlaywrightError):
                await browser.close()
            raise
        _yield_to_engine(process)
        if settings.sandbox:
            timeout_s = settings.launch_timeout_s
            try:
                await sandbox.check(browser, control, process.pid, timeout_s=timeout_s)
            except BaseException:
                kill_tree(process)
                raise
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

    def kill_largest(self, use: TreeUse) -> None:
        """Kill the renderer that uses most."""
        with suppress(psutil.Error):
            psutil.Process(use.largest_pid).kill()
        self._memory_kills.append(time.monotonic())

    def claim_memory_kill(self) -> bool:
        """Whether a page that crashed was killed for its memory: one for each that was killed."""
        since = time.monotonic() - _MEMORY_CRASH_S
        self._memory_kills = [at for at in self._memory_kills if at >= since]
        if not self._memory_kills:
            return False
        self._memory_kills.pop()
        return True

    def worked_s(self) -> float:
        """Seconds of processor time that the browser's own process and its driver have used."""
        total = 0.0
        for process in self._working:
            with suppress(psutil.Error):
                times = process.cpu_times()
                total += times.user + times.system
        return total

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


def _yield_to_engine(process: psutil.Process) -> None:
    """Let pages have what the loop, the driver and the browser leave of the processors.

    Renderers are forked by the zygotes and are as nice as they: pages that compute without end
    would keep the deadlines of all from being met.
    """
    with suppress(psutil.Error, OSError):
        for child in process.children(recursive=True):
            if "--type=zygote" in child.cmdline():
                child.nice(min(19, child.nice() + _PAGE_NICENESS))


def _up_to_this_process(process: psutil.Process) -> list[psutil.Process]:
    """Its parents below this process: the driver, and the shell that starts Debian's Chromium."""
    parents: list[psutil.Process] = []
    with suppress(psutil.Error):
        for parent in process.parents():
            if parent.pid == os.getpid():
                return parents
            parents.append(parent)
    return []


def _environment(environ: Mapping[str, str]) -> dict[str, str | float | bool]:
    return {name: environ[name] for name in _ENVIRONMENT if name in environ}

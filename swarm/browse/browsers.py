r"""The warm browser of one engine: launched, lent, probed, retired and replaced.

    launching -> warm -> retiring -> closed        the successor is warm before it retires
                   \-> lost | hung -> killed        the next task launches another

All of it runs on the engine's loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from playwright.async_api import Error as PlaywrightError

from swarm import logs
from swarm.browse.chromium import Chromium
from swarm.browse.events import KillCause, OnContexts, OnEvent, log_killed
from swarm.browse.launcher import Launcher
from swarm.settings import BrowserSettings

log = logging.getLogger(__name__)


#: Seconds between two looks at a browser's memory.
_LOOK_S = 1.0
#: Looks between two signs of life that are asked for.
_LOOKS_A_PROBE = 5
#: Seconds for a sign of life; the second that does not come is the browser's end.
_PROBE_S = 5.0
_FAILED_PROBES = 2
#: Seconds that closing a browser may take.
_CLOSE_S = 5.0
_MB = 1024 * 1024

_T = TypeVar("_T")


class Browsers:
    """Owns the driver and at most two browsers: the warm one and the one that retires."""

    def __init__(
        self,
        settings: BrowserSettings,
        on_event: OnEvent,
        *,
        uses_before_retirement: int | None = None,
        headed: bool = False,
        on_contexts: OnContexts = lambda _count: None,
        is_pressed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._settings = settings
        self._is_pressed = is_pressed
        self._on_contexts = on_contexts
        self._contexts = 0
        self._directory = Path()
        self._on_event = on_event
        self._max_uses = uses_before_retirement or settings.uses_before_retirement
        self._lock = asyncio.Lock()
        self._warm: Chromium | None = None
        self._live: list[Chromium] = []
        self._launcher = Launcher(
            settings,
            headed=headed,
            is_in_use=lambda: bool(self._live),
            on_hung=lambda: self.kill_all("driver"),
        )
        self._successor: asyncio.Task[None] | None = None
        self._background: set[asyncio.Task[Any]] = set()

    async def start(self, directory: Path) -> None:
        """Launch the first browser, which writes below `directory` only, and begin to watch.

        Raises:
            playwright.async_api.Error: it does not start.
        """
        self._directory = directory
        await self._current()
        self._spawn(self._watch())

    async def lend(self) -> Chromium:
        """The warm browser, in use until it is given back.

        Raises:
            playwright.async_api.Error: none can be launched.
        """
        # A launch goes on when the task that waits for it is given up: others wait for it too.
        chromium = await asyncio.shield(self._spawn(self._current()))
        chromium.uses += 1
        chromium.open_contexts += 1
        self._count_context(1)
        return chromium

    def give_back(self, chromium: Chromium) -> None:
        """Its context is closed; a retired browser closes with its last one."""
        chromium.open_contexts -= 1
        self._count_context(-1)
        if chromium.retired and chromium.open_contexts == 0:
            self._spawn(self._close(chromium))

    def _count_context(self, change: int) -> None:
        self._contexts += change
        self._on_contexts(self._contexts)

    def note_crash(self, cause: str) -> None:
        """A page's renderer is gone: by itself (`crash`), or killed for its `memory`."""
        self._on_event("page-crashed", cause)

    def discard(self, chromium: Chromium, cause: KillCause) -> None:
        """Kill a browser that hangs; tasks on it see it vanish."""
        if chromium not in self._live:
            return
        was_warm = chromium is self._warm
        self._forget(chromium)
        killed = chromium.kill()
        self._on_event("killed", cause)
        log_killed("browser", cause, killed)
        if was_warm:
            # Perhaps it is the driver that hangs: better found out before the next task comes.
            self._spawn(self._warm_up())

    def lost(self, chromium: Chromium) -> None:
        """A task found it gone, perhaps before its end was told: nobody is to get it any more."""
        if chromium in self._live:
            self._lose(chromium)

    def kill_all(self, cause: KillCause, *, wait_s: float = 0.0) -> None:
        """Kill the driver and every browser; safe from any thread."""
        self._warm = None
        self._live.clear()
        killed = self._launcher.kill(wait_s=wait_s)
        self._on_event("killed", cause)
        log_killed("driver", cause, killed)

    async def close(self) -> None:
        """End the watch, the browsers and the driver."""
        for task in tuple(self._background):
            task.cancel()
        for chromium in tuple(self._live):
            await self._close(chromium)
        await self._launcher.stop()

    # -- the warm one

    async def _current(self) -> Chromium:
        async with self._lock:
            warm = self._warm
            if warm is not None and not warm.connected:
                self._lose(warm)
                warm = None
            if warm is None:
                warm = self._warm = await self._launch()
            elif warm.uses >= self._max_uses:
                self._replace(warm, "uses")
            return warm

    def _replace(self, warm: Chromium, cause: str) -> None:
        """Launch a successor in the background, if none is being launched."""
        if self._successor is None or self._successor.done():
            self._successor = self._spawn(self._succeed(warm, cause))

    async def _succeed(self, old: Chromium, cause: str) -> None:
        try:
            new = await self._launch()
        except PlaywrightError as exc:
            # The old one goes on; the next task tries again.
            log.warning("no successor for a browser: %s", exc.message.splitlines()[0])
            return
        if self._warm is not old:
            # It was lost meanwhile, and has a successor.
            await self._close(new)
            return
        self._warm = new
        old.retired = True
        self._on_event("retired", cause)
        if old.open_contexts == 0:
            await self._close(old)

    async def _launch(self) -> Chromium:
        chromium = await self._launcher.launch(self._directory)
        self._live.append(chromium)
        chromium.browser.on("disconnected", lambda _: self._on_disconnected(chromium))
        self._on_event("launched", "")
        return chromium

    def _on_disconnected(self, chromium: Chromium) -> None:
        if chromium in self._live:
            was_warm = chromium is self._warm
            self._lose(chromium)
            if was_warm:
                self._spawn(self._warm_up())

    async def _warm_up(self) -> None:
        """Have a browser ready before the next task asks for one."""
        with suppress(PlaywrightError):
            await self._current()

    def _lose(self, chromium: Chromium) -> None:
        self._on_event("lost", "disconnect")
        self._forget(chromium)
        # Its renderers end with it, unless one hangs.
        chromium.kill()

    # -- watching

    async def _watch(self) -> None:
        failed = looks = 0
        while True:
            await asyncio.sleep(_LOOK_S)
            looks += 1
            for chromium in tuple(self._live):
                self._look_at_memory(chromium)
            warm = self._warm
            if warm is None:
                continue
            if warm.age_s >= self._settings.age_before_retirement_s:
                self._replace(warm, "age")
            if self._is_pressed() and warm.uses > 0 and warm.open_contexts == 0:
                self._spawn(self._relieve(warm))
                continue
            if looks % _LOOKS_A_PROBE == 0 or failed:
                failed = 0 if await _answers(warm.probe(), _PROBE_S) else failed + 1
            if failed >= _FAILED_PROBES and warm is self._warm and warm.connected:
                failed = 0
                # Whether it is the browser or the driver that hangs cannot be told from here.
                self.kill_all("probe")

    def _look_at_memory(self, chromium: Chromium) -> None:
        use = chromium.memory()
        limit = self._settings.memory_before_retirement_mb * _MB
        page_limit = self._settings.page_memory_mb * _MB
        # A page may spread over as many renderers as it names sites: all of them are bounded too.
        if use.largest > page_limit or use.total > limit + page_limit:
            chromium.kill_largest(use)
            log.warning("renderer killed", extra={"fields": {"used_mb": use.largest // _MB}})
        elif use.total > limit and chromium is self._warm:
            self._replace(chromium, "memory")

    async def _relieve(self, idle: Chromium) -> None:
        """Give back what nothing else would free while no task comes.

        The old one goes first: near its limits the unit may have no room for two.
        """
        self._on_event("retired", "pressure")
        await self._close(idle)
        await self._warm_up()

    # -- ends

    async def _close(self, chromium: Chromium) -> None:
        self._forget(chromium)
        if not await _answers(chromium.close(), _CLOSE_S):
            chromium.kill()

    def _forget(self, chromium: Chromium) -> None:
        if chromium in self._live:
            self._live.remove(chromium)
        if self._warm is chromium:
            self._warm = None

    def _spawn(self, coroutine: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        # What a task sets off goes on after it, and is not its own.
        task = asyncio.get_running_loop().create_task(coroutine, context=logs.of_no_task())
        self._background.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.debug("background work failed", extra={"fields": {"reason": str(error)}})


async def _answers(asking: Coroutine[Any, Any, None], seconds: float) -> bool:
    """Whether it ended well and in time. What crashed fails or hangs."""
    try:
        await asyncio.wait_for(asking, seconds)
    except (PlaywrightError, TimeoutError) as exc:
        log.debug("no answer", extra={"fields": {"reason": str(exc)}})
        return False
    return True

"""The engine: one thread with an asyncio loop, one Playwright driver, one warm Chromium.

Started once in each worker process, after the fork. Tasks call `run` from any thread; each gets
a fresh context on the warm browser and one deadline over everything. What a page leaves behind
ends with its context.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Literal, TypeVar

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Playwright, async_playwright

from swarm.browse.artifacts import ArtifactRefusedError, ArtifactStore, ArtifactStoreAwayError
from swarm.browse.chromium import Chromium, kill_process_tree
from swarm.browse.failures import LAUNCH_STAGE, classify, store_failure
from swarm.browse.model import BrowserJob, ErrorCode, JobError, JobResult, job_error
from swarm.browse.visit import Visit
from swarm.errors import TransientError
from swarm.settings import BrowserSettings

log = logging.getLogger(__name__)

EngineEvent = Literal["launched", "lost", "retired", "killed"]

#: Seconds that closing a context or a browser may take; a hung renderer never answers.
_CLOSE_TIMEOUT_S = 5.0
#: Seconds after a job's deadline until its browser is killed instead of asked.
_GRACE_S = 2 * _CLOSE_TIMEOUT_S

_T = TypeVar("_T")


class EngineError(TransientError):
    """The browser could not be started."""


class Engine:
    """Runs browser jobs on one warm browser.

    `on_event` is called, on the engine's thread, with every launch, loss, retirement and kill.
    """

    def __init__(
        self,
        settings: BrowserSettings,
        store: ArtifactStore,
        *,
        on_event: Callable[[EngineEvent], None] = lambda _event: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._on_event = on_event
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="browser-engine", daemon=True)
        self._launch_lock = asyncio.Lock()
        self._playwright: Playwright | None = None
        self._chromium: Chromium | None = None

    def start(self) -> None:
        """Start the thread and the browser; returns when the browser is up.

        Raises:
            EngineError: it could not be launched, with the reason.
        """
        self._thread.start()
        try:
            self._call(self._current_chromium(), timeout_s=self._settings.launch_timeout_s + 10)
        except (PlaywrightError, TimeoutError, OSError) as exc:
            self.stop()
            reason = str(exc).strip() or "no answer in time"
            raise EngineError(f"{self._settings.executable} did not start: {reason}") from exc

    def run(self, job: BrowserJob) -> JobResult:
        """Do a job and wait for it; safe from several threads at once.

        Returns within the job's deadline plus the grace for killing the browser.

        Raises:
            JobError: the job failed; its class says whether a retry may help.
        """
        try:
            return self._call(self._run_within_deadline(job), timeout_s=job.deadline_s + _GRACE_S)
        except TimeoutError as exc:
            # Not even cancelling freed it: the loop itself waits for something.
            self._loop.call_soon_threadsafe(self._kill_everything)
            raise job_error(
                ErrorCode.DEADLINE, f"not done within {job.deadline_s:g} s", stage="deadline"
            ) from exc

    def stop(self) -> None:
        """Close the browser, kill what is left of it, end the thread."""
        try:
            self._call(self._close_all(), timeout_s=2 * _CLOSE_TIMEOUT_S)
        except (PlaywrightError, TimeoutError):
            log.warning("browser did not close; killing it")
        kill_process_tree()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_CLOSE_TIMEOUT_S)
        if not self._thread.is_alive():
            self._loop.close()

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, coroutine: Coroutine[Any, Any, _T], *, timeout_s: float) -> _T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        finally:
            # Also when Celery's soft time limit is raised in this thread: nobody waits any more.
            future.cancel()

    async def _run_within_deadline(self, job: BrowserJob) -> JobResult:
        try:
            async with asyncio.timeout(job.deadline_s):
                try:
                    return await self._attempt(job)
                except JobError as exc:
                    if exc.code is not ErrorCode.BROWSER_LOST:
                        raise
                    log.warning("browser lost during a task; trying once more on a new one")
                return await self._attempt(job)
        except TimeoutError as exc:
            raise job_error(
                ErrorCode.DEADLINE, f"not done within {job.deadline_s:g} s", stage="deadline"
            ) from exc

    async def _attempt(self, job: BrowserJob) -> JobResult:
        """One try on the warm browser; whatever ends it, its context is closed."""
        started_at = time.monotonic()
        try:
            chromium = await self._current_chromium()
        except PlaywrightError as exc:
            raise classify(exc, stage=LAUNCH_STAGE) from exc
        visit = Visit(job, self._store, self._settings)
        visit.timings_s[LAUNCH_STAGE] = round(time.monotonic() - started_at, 4)
        chromium.uses += 1
        chromium.open_contexts += 1
        try:
            await visit.perform(chromium.browser)
        except PlaywrightError as exc:
            raise classify(exc, stage=visit.stage) from exc
        except (ArtifactRefusedError, ArtifactStoreAwayError) as exc:
            raise store_failure(exc, stage=visit.stage) from exc
        finally:
            await self._end_visit(visit, chromium)
        return visit.result(chromium.use)

    async def _end_visit(self, visit: Visit, chromium: Chromium) -> None:
        """Close its context; a browser that does not answer is killed, a retired one closed."""
        answers = await _close_bounded(visit.close() if visit.opened else chromium.probe())
        chromium.open_contexts -= 1
        if chromium.connected and not answers:
            # It hangs, and would take every later task to its deadline.
            self._kill_everything()
        elif chromium.retired and chromium.open_contexts == 0:
            await _close_bounded(chromium.close())

    async def _current_chromium(self) -> Chromium:
        """The warm browser; launched or replaced first when that is due.

        A retired browser goes on until its last context closes, so its successor is up before it
        ends.
        """
        async with self._launch_lock:
            chromium = self._chromium
            if chromium is not None and not chromium.connected:
                self._on_event("lost")
                chromium = None
            if chromium is not None and chromium.uses >= self._settings.uses_before_retirement:
                chromium.retired = True
                self._on_event("retired")
                if chromium.open_contexts == 0:
                    await _close_bounded(chromium.close())
                chromium = None
            if chromium is None:
                chromium = await self._launch()
            self._chromium = chromium
            return chromium

    async def _launch(self) -> Chromium:
        try:
            chromium = await Chromium.launch(await self._driver(), self._settings)
        except PlaywrightError:
            # A driver that lost its pipe cannot launch anything: begin with a new one.
            if self._playwright is not None:
                await _close_bounded(self._playwright.stop())
            self._playwright = None
            chromium = await Chromium.launch(await self._driver(), self._settings)
        self._on_event("launched")
        return chromium

    async def _driver(self) -> Playwright:
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        return self._playwright

    def _kill_everything(self) -> None:
        """End a browser or driver that hangs; at once, so that no new one is hit."""
        self._playwright = None
        self._chromium = None
        killed = kill_process_tree()
        self._on_event("killed")
        log.warning("browser killed: it hangs", extra={"fields": {"processes": killed}})

    async def _close_all(self) -> None:
        await _close_bounded(self._store.close())
        if self._chromium is not None:
            await _close_bounded(self._chromium.close())
        if self._playwright is not None:
            await _close_bounded(self._playwright.stop())


async def _close_bounded(closing: Coroutine[Any, Any, None]) -> bool:
    """Whether it closed. What crashed fails or hangs; neither may keep a task's worker."""
    try:
        await asyncio.wait_for(closing, _CLOSE_TIMEOUT_S)
    except (PlaywrightError, TimeoutError) as exc:
        log.debug("close failed", extra={"fields": {"reason": str(exc)}})
        return False
    return True

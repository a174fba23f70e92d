"""The engine: one thread with an asyncio loop, one Playwright driver, one warm Chromium.

Started once in each worker process, after the fork. Tasks call `run` from any thread; each gets
a fresh context on the warm browser and one deadline over everything, after which it is given up in
steps: it is cancelled, its context closed, then the browser killed, then the driver.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from playwright.async_api import Error as PlaywrightError

from swarm import logs
from swarm.browse import sandbox
from swarm.browse.attempt import Attempt
from swarm.browse.browsers import Browsers
from swarm.browse.errors import ErrorCode, JobError, job_error
from swarm.browse.events import OnContexts, OnEvent
from swarm.browse.failures import unforeseen
from swarm.browse.payload import BrowserJob
from swarm.browse.processes import make_directory, sweep
from swarm.browse.result import JobResult
from swarm.browse.video import lend
from swarm.browse.visit import Deployment
from swarm.errors import TransientError

log = logging.getLogger(__name__)

#: Seconds after a deadline beyond which the loop itself must be stuck.
_GRACE_S = 1.7
#: Seconds between two signs of the loop's life, and without one after which it is stuck.
_BEAT_S = 0.5
_STUCK_S = 4.0
#: Seconds for everything to close.
_STOP_S = 10.0

_T = TypeVar("_T")


class EngineError(TransientError):
    """The browser could not be started."""


class UnconfinedBrowserError(EngineError):
    """It has no sandbox, and starting it again would give it none."""

    exit_status = 2


@dataclass(slots=True)
class _Run:
    """A job that runs, and why it is to be given up, when it is."""

    began_at: float = field(default_factory=time.monotonic)
    work: asyncio.Task[None] | None = None
    abandoned: JobError | None = None

    def abandon(self, error: JobError) -> None:
        """Only the first reason counts."""
        if self.abandoned is None:
            self.abandoned = error
            if self.work is not None:
                self.work.cancel()


class Engine:
    """Runs browser jobs on one warm browser.

    `on_event` is called with every launch, loss, retirement and kill, and its cause; `on_contexts`
    with how many contexts are open, whenever that changes. While `is_pressed` an idle browser that
    was used is replaced by a fresh one.
    """

    def __init__(
        self,
        deployment: Deployment,
        *,
        on_event: OnEvent = lambda _event, _cause: None,
        uses_before_retirement: int | None = None,
        headed: bool = False,
        on_contexts: OnContexts = lambda _count: None,
        is_pressed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._deployment = deployment
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="browser-engine", daemon=True)
        self._runs: dict[str, _Run] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._directory: Path | None = None
        self._beat_at = time.monotonic()
        self._browsers = Browsers(
            deployment.settings,
            on_event,
            uses_before_retirement=uses_before_retirement,
            headed=headed,
            on_contexts=on_contexts,
            is_pressed=is_pressed,
        )

    def start(self) -> None:
        """Sweep up after engines that died, start the thread and the browser.

        Raises:
            UnconfinedBrowserError: it has not the sandbox that `browser.sandbox` wants.
            EngineError: it could not be launched, with the reason.
        """
        settings = self._deployment.settings
        try:
            self._directory = _make_directory()
            lend(settings, self._directory)
            self._thread.start()
            starting = self._browsers.start(self._directory)
            self._call(starting, timeout_s=2 * settings.launch_timeout_s + 10)
        except (PlaywrightError, TimeoutError, OSError) as exc:
            self.stop()
            if isinstance(exc, PlaywrightError) and (reason := sandbox.reason(exc)):
                raise UnconfinedBrowserError(f"{settings.executable}: {reason}") from exc
            # What follows is Chromium's command line.
            reason = str(exc).partition("Call log:")[0].strip() or "no answer in time"
            raise EngineError(f"{settings.executable} did not start: {reason}") from exc

    def run(self, job: BrowserJob, *, task_id: str = "") -> JobResult:
        """Do a job and wait for it; safe from several threads at once.

        Returns within the job's deadline plus two seconds.

        Raises:
            JobError: the job failed; its class says whether a retry may help, its `result` what
                is known all the same.
        """
        deadline_s = job.limits.deadline_s
        running = self._run_job(job, task_id or uuid.uuid4().hex)
        try:
            return self._call(running, timeout_s=deadline_s + _GRACE_S)
        except TimeoutError as exc:
            # Not even cancelling freed it in time. A loop that is only slow, because others leave
            # it little of the processors, gets there; of one that is stuck all jobs are.
            if time.monotonic() - self._beat_at > _STUCK_S:
                self._browsers.kill_all("deadline")
            raise _deadline_error(deadline_s, stage="deadline") from exc

    def cancel(self, task_id: str) -> bool:
        """Give up a job that runs; False when there is none of this id. Safe from any thread."""
        run = self._runs.get(task_id)
        if run is None:
            return False
        error = job_error(ErrorCode.CANCELLED, "cancelled by an operator", stage="cancel")
        self._loop.call_soon_threadsafe(run.abandon, error)
        return True

    def stop(self) -> None:
        """Close the browser, kill what is left of it, end the thread."""
        if self._thread.is_alive():
            try:
                self._call(self._close(), timeout_s=_STOP_S)
            except TimeoutError:
                self._browsers.kill_all("stop", wait_s=1.0)
            self._loop.call_soon_threadsafe(self._end_loop)
            self._thread.join(timeout=_STOP_S)
        if not self._thread.is_alive():
            self._loop.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        self._loop.call_later(_BEAT_S, self._beat)

    def _end_loop(self) -> None:
        """What still waits for an answer of the driver is told that none will come."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_soon(self._loop.stop)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(_on_loop_error)
        self._loop.call_soon(self._beat)
        self._loop.run_forever()

    def _call(self, coroutine: Coroutine[Any, Any, _T], *, timeout_s: float) -> _T:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        finally:
            # Also when Celery's soft time limit is raised in this thread: nobody waits any more.
            future.cancel()

    # -- on the loop

    async def _run_job(self, job: BrowserJob, task_id: str) -> JobResult:
        # For good: this coroutine is a task of the loop, with a context of its own.
        logs.begin_task(task_id)
        run = self._runs[task_id] = _Run()
        deadline_s = job.limits.deadline_s
        deadline = self._loop.call_later(
            deadline_s, lambda: run.abandon(_deadline_error(deadline_s, stage="deadline"))
        )
        try:
            try:
                return await self._attempt(job, run)
            except JobError as exc:
                if exc.code is not ErrorCode.BROWSER_LOST or run.abandoned is not None:
                    raise
                log.warning("browser lost during a task; trying once more on a new one")
            return await self._attempt(job, run)
        finally:
            deadline.cancel()
            del self._runs[task_id]

    async def _attempt(self, job: BrowserJob, run: _Run) -> JobResult:
        attempt = Attempt(job, self._deployment, self._browsers, on_excess=run.abandon)
        run.work = self._loop.create_task(attempt.work())
        if run.abandoned is not None:
            run.work.cancel()
        try:
            failure = await _outcome_of(run, stage=lambda: attempt.stage)
            result = await attempt.conclude(failure)
            result.timings_s["total"] = round(time.monotonic() - run.began_at, 4)
        finally:
            run.work.cancel()
            # The next task need not wait until this page is gone.
            closing = self._loop.create_task(attempt.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        if failure is not None:
            raise failure.with_result(asdict(result))
        return result

    async def _close(self) -> None:
        for run in self._runs.values():
            run.abandon(job_error(ErrorCode.CANCELLED, "the worker stops", stage="cancel"))
        if self._closing:
            await asyncio.wait(self._closing)
        await self._browsers.close()
        await self._deployment.store.close()


async def _outcome_of(run: _Run, *, stage: Callable[[], str]) -> JobError | None:
    """How its work ended: well, by a failure, or given up."""
    assert run.work is not None  # noqa: S101 - for the type checker
    await asyncio.wait([run.work])
    if run.abandoned is not None:
        return run.abandoned
    try:
        run.work.result()
    except JobError as exc:
        return exc
    except Exception as exc:  # noqa: BLE001 - the engine outlives whatever a page makes of a job
        return unforeseen(exc, stage=stage())
    return None


def _deadline_error(deadline_s: float, *, stage: str) -> JobError:
    return job_error(ErrorCode.DEADLINE, f"not done within {deadline_s:g} s", stage=stage)


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Playwright drops the futures of calls that were given up; their errors tell nobody anything.

    asyncio would log each as an error.
    """
    if "never retrieved" in context.get("message", ""):
        log.debug("a call that was given up failed", extra={"fields": {"reason": context}})
    else:
        loop.default_exception_handler(context)


def _make_directory() -> Path:
    """A place for all that driver and browser write, which both find by TMPDIR."""
    parent = Path(tempfile.gettempdir())
    if killed := sweep(parent):
        log.warning("killed what a dead engine left", extra={"fields": {"processes": killed}})
    directory = make_directory(parent)
    # Playwright's driver takes its environment from ours, and nothing else.
    os.environ["TMPDIR"] = str(directory)
    return directory

"""One visit on one lent browser, from the lending to the giving back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from playwright.async_api import Error as PlaywrightError

from swarm.browse.browsers import Browsers
from swarm.browse.chromium import Chromium
from swarm.browse.errors import ErrorCode, JobError, job_error
from swarm.browse.failures import LAUNCH_STAGE, classify
from swarm.browse.payload import BrowserJob
from swarm.browse.result import JobResult
from swarm.browse.visit import Deployment, Visit

#: Seconds after a failure for a picture and for recordings.
_EVIDENCE_S = 1.2
#: Seconds that closing a context may take before its browser counts as hung.
_CLOSE_S = 3.0
#: How often as long, if driver and browser have more to do than a share of that time.
_CLOSE_ROUNDS = 5
_BUSY_SHARE = 0.1
#: Seconds in which a page or browser that lives answers after a failure.
_SIGN_OF_LIFE_S = 1.0


class Attempt:
    """`work`, then `conclude`, then `close`, whatever becomes of each."""

    def __init__(
        self,
        job: BrowserJob,
        deployment: Deployment,
        browsers: Browsers,
        *,
        on_excess: Callable[[JobError], None],
    ) -> None:
        self._browsers = browsers
        self._visit = Visit(job, deployment, on_excess=on_excess)
        self._chromium: Chromium | None = None

    @property
    def stage(self) -> str:
        """What it is at."""
        return self._visit.progress.stage

    async def work(self) -> None:
        """Get the browser and do the job on it.

        Raises:
            JobError: it failed.
        """
        try:
            with self._visit.progress.timed("launch"):
                self._chromium = await self._browsers.lend()
        except PlaywrightError as exc:
            raise classify(exc, stage=LAUNCH_STAGE) from exc
        try:
            await self._visit.perform(self._chromium)
        except JobError as exc:
            raise await self._explained(exc, self._chromium) from exc
        await self._visit.finish(failed=False)

    async def conclude(self, failure: JobError | None) -> JobResult:
        """The result; of a failure with what can be had of evidence in a short time."""
        if failure is not None and self._leaves_evidence(failure):
            with suppress(TimeoutError, JobError):
                async with asyncio.timeout(_EVIDENCE_S):
                    await self._visit.keep_evidence()
                    await self._visit.finish(failed=True)
        use = self._chromium.use if self._chromium is not None else None
        return self._visit.result(use, failure)

    def _leaves_evidence(self, failure: JobError) -> bool:
        return failure.code not in _LEAVE_NO_EVIDENCE and not self._visit.flooded

    async def close(self) -> None:
        """Close the page and give the browser back; one that does not answer is killed."""
        chromium = self._chromium
        if chromium is None:
            return
        # Without a context to close, something else tells whether the browser answers.
        closing = asyncio.ensure_future(
            self._visit.close() if self._visit.opened else chromium.probe()
        )
        try:
            if not await _ends(closing, chromium) and chromium.connected:
                self._browsers.discard(chromium, "close")
        finally:
            self._browsers.give_back(chromium)

    async def _explained(self, error: JobError, chromium: Chromium) -> JobError:
        """What became of page and browser decides, not in which words a call failed.

        The same death is "net::ERR_ABORTED" to a navigation and "detached" to a step, and a crash
        is told after the calls that it broke.
        """
        if error.code in _UNCLEAR:
            error = await self._visit.ask_page(_SIGN_OF_LIFE_S) or error
        crashed = self._visit.crashed or error.code is ErrorCode.PAGE_CRASH
        if error.code is ErrorCode.BROWSER_LOST and not crashed:
            if not await _answers(chromium.probe()) or not chromium.connected:
                self._browsers.lost(chromium)
                return error
            return job_error(ErrorCode.ACTION_FAILED, "the page closed itself", stage=error.stage)
        if not crashed or not chromium.connected:
            return error
        killed = chromium.claim_memory_kill()
        self._browsers.note_crash("memory" if killed else "crash")
        if killed:
            message = "the page took more memory than browser.page_memory_mb allows"
            return job_error(ErrorCode.RESOURCE_LIMIT, message, stage=error.stage)
        return job_error(ErrorCode.PAGE_CRASH, error.message, stage=error.stage)


async def _ends(closing: asyncio.Future[None], chromium: Chromium) -> bool:
    """Whether it ends well, in the time that it takes.

    The answer comes behind all that pages have sent, and some send without end: driver and browser
    that work on that do not hang, and the jobs of others are not to lose them.
    """
    for _ in range(_CLOSE_ROUNDS):
        worked_s = chromium.worked_s()
        done, _ = await asyncio.wait([closing], timeout=_CLOSE_S)
        if done:
            return closing.exception() is None
        if chromium.worked_s() - worked_s < _BUSY_SHARE * _CLOSE_S:
            break
    closing.cancel()
    return False


async def _answers(asking: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(asking, _SIGN_OF_LIFE_S)
    except (PlaywrightError, TimeoutError):
        return False
    return True


#: What a call fails with that may be the page's own fault, or its end's.
_UNCLEAR = frozenset({ErrorCode.NAVIGATION, ErrorCode.ACTION_FAILED})
_LEAVE_NO_EVIDENCE = frozenset({ErrorCode.BROWSER_LOST, ErrorCode.CANCELLED, ErrorCode.INVALID})

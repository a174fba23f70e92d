"""One attempt at a job: a fresh context, the page, what was done there and what came of it.

The engine decides on which browser and for how long. A visit owns its context from `perform` to
`close`, and can tell at any moment how far it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from playwright.async_api import BrowserContext, Page
from playwright.async_api import Error as PlaywrightError

from swarm.browse import actions, steps
from swarm.browse.artifacts import ArtifactStore
from swarm.browse.chromium import Chromium
from swarm.browse.contexts import ContextPlan
from swarm.browse.downloads import Downloads
from swarm.browse.errors import ErrorCode, JobError, TransientJobError, job_error
from swarm.browse.failures import NAVIGATION_STAGE, STORE_ERRORS, classify, store_failure
from swarm.browse.floods import Floods
from swarm.browse.navigation import Navigator
from swarm.browse.outbox import Outbox
from swarm.browse.payload import BrowserJob
from swarm.browse.progress import Progress
from swarm.browse.reading import Reader
from swarm.browse.recordings import Recordings
from swarm.browse.result import BrowserUse, Failure, JobResult, Redirect
from swarm.browse.secrets import Redactor, Secrets
from swarm.browse.session import Session
from swarm.browse.traffic import Traffic
from swarm.browse.urls import MAX_URL_CHARACTERS
from swarm.browse.video import can_record
from swarm.settings import BrowserSettings


@dataclass(frozen=True, slots=True)
class Deployment:
    """What every job of a process works with."""

    settings: BrowserSettings
    store: ArtifactStore
    secrets: Secrets


class Visit:
    """Does a job once. `on_excess` is called when the page receives more than it may."""

    def __init__(
        self, job: BrowserJob, deployment: Deployment, *, on_excess: Callable[[JobError], None]
    ) -> None:
        self._job = job
        self._deployment = deployment
        settings = deployment.settings
        self._max_bytes = min(job.limits.bytes or settings.max_bytes, settings.max_bytes)
        self._redactor = Redactor()
        self._outbox = Outbox(
            deployment.store, self._redactor, inline_bytes=settings.inline_result_bytes
        )
        self._give_up = on_excess
        self.flooded = False
        self._traffic = Traffic(max_bytes=self._max_bytes, on_excess=self._on_excess)
        self._downloads: Downloads | None = None
        self._recordings: Recordings | None = None
        self._context: BrowserContext | None = None
        self._page: Page | None = None
        self._navigator: Navigator | None = None
        self._title = ""
        self.crashed = False
        self._data: dict[str, Any] = {}
        self.progress = Progress(job)

    @property
    def opened(self) -> bool:
        """Whether there is a context to close."""
        return self._context is not None

    async def perform(self, chromium: Chromium) -> None:
        """Open the context and the page, and do what the job says.

        Raises:
            JobError: the job failed, or is not one for this deployment.
        """
        progress = self.progress
        try:
            with progress.timed("context"):
                session = await self._open(chromium)
            progress.stage = NAVIGATION_STAGE
            with progress.timed("navigation"):
                await session.navigator.open_first(stage=progress.stage)
            if self._job.steps:
                with progress.timed("steps"):
                    await self._take_steps(session)
            if self._job.actions:
                with progress.timed("actions"):
                    await self._perform_actions(session)
            self._title = await session.reader.title()
        except PlaywrightError as exc:
            raise classify(exc, stage=progress.stage) from exc
        except OSError as exc:
            message = f"no place for recordings: {exc}"
            raise job_error(ErrorCode.RESOURCE_LIMIT, message, stage=progress.stage) from exc

    async def _open(self, chromium: Chromium) -> Session:
        plan = ContextPlan(self._job, self._deployment.secrets, self._redactor, chromium.devices)
        self._refuse_impossible()
        recordings = Recordings(self._job.capture, chromium.directory, self._redactor)
        context = await chromium.browser.new_context(**plan.options, **recordings.context_options())
        self._context, self._recordings = context, recordings
        if cookies := plan.cookies():
            await context.add_cookies(cookies)
        await self._traffic.attach(context, self._job.network, plan.secret_headers)
        await recordings.start(context)
        page = await context.new_page()
        page.on("crash", self._on_crash)
        Floods(self._on_excess).watch(context)
        self._page = page
        self._navigator = Navigator(page, self._job, proxy=self._deployment.settings.proxy)
        self._downloads = Downloads(page, max_bytes=self._max_bytes, on_excess=self._on_excess)
        return Session(
            job=self._job,
            page=page,
            reader=Reader(page, self._job),
            navigator=self._navigator,
            downloads=self._downloads,
            outbox=self._outbox,
            secrets=self._deployment.secrets,
            redactor=self._redactor,
            settings=self._deployment.settings,
        )

    def _refuse_impossible(self) -> None:
        settings = self._deployment.settings
        if self._job.capture.video and not can_record(settings):
            message = f"capture.video: this worker has no {settings.ffmpeg} (browser.ffmpeg)"
            raise job_error(ErrorCode.INVALID, message, stage=self.progress.stage)
        if self._job.network.proxy is not None and settings.proxy is not None:
            message = (
                "network.proxy: this worker's pages go through browser.proxy, and no other way"
            )
            raise job_error(ErrorCode.INVALID, message, stage=self.progress.stage)

    def _on_crash(self, _page: Page) -> None:
        # What fails with it says so in some words, and in others not.
        self.crashed = True

    async def _take_steps(self, session: Session) -> None:
        for number, step in enumerate(self._job.steps):
            stage = f"steps.{number}.{step.kind}"
            async with self.progress.doing(step, stage) as timeout_ms:
                value = await steps.take(step, session, stage=stage, timeout_ms=timeout_ms)
                if value is not actions.NOTHING:
                    self._data[step.name or step.kind] = value

    async def _perform_actions(self, session: Session) -> None:
        for action in self._job.actions:
            name = action.name or action.kind
            async with self.progress.doing(action, name) as timeout_ms:
                self._data[name] = await actions.perform(
                    action, session, stage=name, timeout_ms=timeout_ms
                )

    async def ask_page(self, seconds: float) -> JobError | None:
        """How the page has ended, once a call failed; None when it answers, or hangs."""
        if self._page is None:
            return None
        try:
            async with asyncio.timeout(seconds):
                await self._page.evaluate("0")
        except PlaywrightError as exc:
            error = classify(exc, stage=self.progress.stage)
            return error if error.code in _ENDS else None
        except TimeoutError:
            return None
        return None

    async def keep_evidence(self) -> None:
        """A picture of the page as it failed. Whoever calls bounds the time."""
        if self._page is not None and self._recordings is not None:
            with suppress(PlaywrightError, *STORE_ERRORS):
                await self._recordings.picture(self._page, self._outbox)

    async def finish(self, *, failed: bool) -> None:
        """Close the context where recordings are complete only then, and keep them.

        Raises:
            JobError: the store takes nothing.
        """
        recordings, context = self._recordings, self._context
        if recordings is None or context is None or not recordings.any_wanted:
            return
        try:
            await recordings.finish_trace(context, failed=failed)
            await context.close()
            await recordings.collect(self._outbox)
        except PlaywrightError as exc:
            raise classify(exc, stage="recordings") from exc
        except STORE_ERRORS as exc:
            raise store_failure(exc, stage="recordings") from exc

    async def close(self) -> None:
        """Close the context, and with it all that the page left in the browser."""
        self._traffic.close()
        if self._downloads is not None:
            self._downloads.close()
        try:
            if self._context is not None:
                await self._context.close()
        finally:
            if self._recordings is not None:
                self._recordings.remove()

    def result(self, use: BrowserUse | None, failure: JobError | None) -> JobResult:
        """What is known of the job, however it ended; without the secrets that it used."""
        hide = self._redactor.text
        error = failure or self.progress.optional_failure
        navigator = self._navigator
        redirects = navigator.redirects if navigator else ()
        return JobResult(
            status="failed" if failure else "partial" if error else "ok",
            final_url=_cut(hide(self._page.url)) if self._page is not None else "",
            http_status=navigator.http_status if navigator else None,
            title=_cut(hide(self._title)),
            redirects=tuple(Redirect(_cut(hide(hop.url)), hop.status) for hop in redirects),
            steps=tuple(
                replace(o, error=o.error and hide(o.error)) for o in self.progress.outcomes()
            ),
            data=self._data,
            artifacts=tuple(self._outbox.artifacts),
            console=self._recordings.console(failed=bool(failure)) if self._recordings else (),
            network=self._traffic.counts(),
            timings_s=self.progress.timings_s,
            browser=use,
            error=_failure(error, hide),
        )

    def _on_excess(self, message: str) -> None:
        # What has come is to be worked off; no picture is worth that it goes on.
        self.flooded = True
        self._give_up(job_error(ErrorCode.RESOURCE_LIMIT, message, stage=self.progress.stage))


#: What a page that answers nothing any more has come to.
_ENDS = frozenset({ErrorCode.PAGE_CRASH, ErrorCode.BROWSER_LOST})


def _failure(error: JobError | None, hide: Callable[[str], str]) -> Failure | None:
    if error is None:
        return None
    retryable = isinstance(error, TransientJobError)
    return Failure(str(error.code), hide(error.message), retryable, error.stage)


def _cut(text: str) -> str:
    """What pages choose and results hold: titles and URLs of megabytes are no use to anybody."""
    return text[:MAX_URL_CHARACTERS]

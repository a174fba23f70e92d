"""One attempt at a job: a fresh context, the page, what was done there and what came of it.

The engine decides on which browser and for how long. A visit owns its context from `perform` to
`close`, and can tell at any moment how far it came.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page

from swarm.browse.actions import perform
from swarm.browse.artifacts import ArtifactStore
from swarm.browse.failures import LAUNCH_STAGE, NAVIGATION_STAGE
from swarm.browse.model import (
    Artifact,
    BrowserJob,
    BrowserUse,
    ErrorCode,
    JobResult,
    job_error,
)
from swarm.settings import BrowserSettings


class Visit:
    """Does a job once. `stage` is what it is at; `timings_s` the seconds of each stage so far."""

    def __init__(self, job: BrowserJob, store: ArtifactStore, settings: BrowserSettings) -> None:
        self._job = job
        self._store = store
        self._settings = settings
        self._context: BrowserContext | None = None
        self._http_status: int | None = None
        self._final_url = ""
        self._title = ""
        self._data: dict[str, Any] = {}
        self._artifacts: list[Artifact] = []
        self.stage = LAUNCH_STAGE
        self.timings_s: dict[str, float] = {}

    @property
    def opened(self) -> bool:
        """Whether there is a context to close."""
        return self._context is not None

    async def perform(self, browser: Browser) -> None:
        """Open the context and the page, and do what the job says.

        Raises:
            JobError: the page answered an HTTP error.
            playwright.async_api.Error: whatever else the page or the browser did.
            ArtifactRefusedError, ArtifactStoreAwayError: the store took nothing.
        """
        self._context = await browser.new_context(
            viewport={"width": self._job.viewport_width, "height": self._job.viewport_height},
            # A service worker outlives its page and hides requests from routing.
            service_workers="block",
            accept_downloads=False,
        )
        page = await self._context.new_page()
        self.stage = NAVIGATION_STAGE
        with self._timed("navigation"):
            await self._navigate(page)
        with self._timed("actions"):
            await self._act(page)
        self._final_url = page.url
        self._title = await page.title()

    async def close(self) -> None:
        """Close the context, and with it all that the page left in the browser."""
        if self._context is not None:
            await self._context.close()

    def result(self, use: BrowserUse) -> JobResult:
        return JobResult(
            final_url=self._final_url,
            http_status=self._http_status,
            title=self._title,
            data=self._data,
            artifacts=tuple(self._artifacts),
            timings_s=self.timings_s,
            browser=use,
        )

    async def _navigate(self, page: Page) -> None:
        response = await page.goto(
            self._job.url, wait_until="load", timeout=self._job.navigation_timeout_s * 1000
        )
        self._http_status = status = response.status if response is not None else None
        if status is not None and status >= 400:
            raise job_error(
                ErrorCode.HTTP_STATUS,
                f"the page answered {status}",
                stage=NAVIGATION_STAGE,
                # The server's own trouble, or "too many requests", may pass; other 4xx will not.
                retryable=status >= 500 or status == 429,
            )

    async def _act(self, page: Page) -> None:
        for action in self._job.actions:
            self.stage = action.name or action.kind
            self._data[self.stage], artifact = await perform(
                action,
                page,
                self._store,
                inline_bytes=self._settings.inline_result_bytes,
                timeout_ms=self._job.navigation_timeout_s * 1000,
            )
            if artifact is not None:
                self._artifacts.append(artifact)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        """Write the seconds that the block took, also when it failed."""
        started_at = time.monotonic()
        try:
            yield
        finally:
            self.timings_s[stage] = round(time.monotonic() - started_at, 4)

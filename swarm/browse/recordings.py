"""What is recorded of a job: console, trace, HAR, video, and a picture of a failure."""

from __future__ import annotations

import asyncio
import shutil
import uuid
import zipfile
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, ConsoleMessage, Page
from playwright.async_api import Error as PlaywrightError

from swarm.browse.outbox import Outbox
from swarm.browse.payload.options import CaptureOptions
from swarm.browse.reading import once_drawn
from swarm.browse.result import ConsoleLine
from swarm.browse.secrets import Redactor

_CONSOLE_LINES = 200
_CONSOLE_CHARACTERS = 1000
#: Characters of a line in which secrets are looked for, and of all lines that are listened to.
_CONSOLE_SCANNED = 100_000
_CONSOLE_TOTAL = 1_000_000
#: Seconds for a picture of a page that may hang.
_PICTURE_S = 1.0
#: Seconds for a trace to be written.
_TRACE_S = 1.5


class Recordings:
    """Records one job, in a directory of its own below `parent`."""

    def __init__(self, options: CaptureOptions, parent: Path, redactor: Redactor) -> None:
        self._options = options
        self._directory = parent / f"visit-{uuid.uuid4().hex}"
        self._redactor = redactor
        self._lines: list[ConsoleLine] = []
        self._traces = options.trace != "off"
        self._context: BrowserContext | None = None
        self._characters = 0

    @property
    def any_wanted(self) -> bool:
        """Whether anything is written that is complete only when the context is closed."""
        return self._traces or self._options.har or self._options.video

    def context_options(self) -> dict[str, Any]:
        """What `new_context` must know.

        Raises:
            OSError: there is no place for what is recorded.
        """
        options: dict[str, Any] = {}
        if self.any_wanted:
            self._directory.mkdir()
        if self._options.har:
            options["record_har_path"] = self._har
        if self._options.video:
            options["record_video_dir"] = self._directory
        return options

    async def start(self, context: BrowserContext) -> None:
        self._context = context
        context.on("console", self._on_console)
        if self._traces:
            await context.tracing.start(screenshots=True, snapshots=True)

    def console(self, *, failed: bool) -> tuple[ConsoleLine, ...]:
        return tuple(self._lines) if failed or self._options.console else ()

    async def finish_trace(self, context: BrowserContext, *, failed: bool) -> None:
        """Before the context closes."""
        if not self._traces:
            return
        wanted = self._options.trace == "on" or failed
        async with asyncio.timeout(_TRACE_S):
            await context.tracing.stop(path=self._trace if wanted else None)

    async def picture(self, page: Page, outbox: Outbox) -> None:
        """Of a page as it failed; of one that hangs there is none."""
        if not self._options.screenshot_on_failure:
            return
        try:
            async with asyncio.timeout(_PICTURE_S):
                picture = await once_drawn(
                    lambda: page.screenshot(
                        timeout=_PICTURE_S * 1000, animations="disabled", type="jpeg", quality=60
                    )
                )
        except (PlaywrightError, TimeoutError):
            return
        await outbox.content(picture, kind="failure-screenshot", mime="image/jpeg")

    async def collect(self, outbox: Outbox) -> None:
        """Keep what was written, once the context is closed.

        Raises:
            ArtifactRefusedError, ArtifactStoreAwayError: the store takes nothing.
        """
        if self._har.exists():
            if self._redactor:
                await asyncio.to_thread(_redact_file, self._har, self._redactor)
            await outbox.file(self._har, kind="har", mime="application/har+json")
        if self._trace.exists():
            if self._redactor:
                await asyncio.to_thread(_redact_archive, self._trace, self._redactor)
            await outbox.file(self._trace, kind="trace", mime="application/zip")
        for video in sorted(self._directory.glob("*.webm")):
            await outbox.file(video, kind="video", mime="video/webm")

    def remove(self) -> None:
        """Remove what was written: it is kept elsewhere by now."""
        if self.any_wanted:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _har(self) -> Path:
        return self._directory / "requests.har"

    @property
    def _trace(self) -> Path:
        return self._directory / "trace.zip"

    def _on_console(self, message: ConsoleMessage) -> None:
        text = message.text
        self._characters += len(text)
        if len(self._lines) < _CONSOLE_LINES:
            shown = self._redactor.text(text[:_CONSOLE_SCANNED])[:_CONSOLE_CHARACTERS]
            self._lines.append(ConsoleLine(message.type, shown))
        full = len(self._lines) == _CONSOLE_LINES or self._characters > _CONSOLE_TOTAL
        if full and self._context is not None:
            # The driver then sends no more: a page that writes without end would keep us from
            # everything else.
            self._context.remove_listener("console", self._on_console)
            self._context = None


def _redact_file(path: Path, redactor: Redactor) -> None:
    path.write_bytes(redactor.content(path.read_bytes()))


def _redact_archive(path: Path, redactor: Redactor) -> None:
    """Hide secrets in every member: a trace holds requests with their headers."""
    scratch = path.with_suffix(".redacted")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(scratch, "w") as target:
        for member in source.infolist():
            target.writestr(member, redactor.content(source.read(member)), zipfile.ZIP_DEFLATED)
    scratch.replace(path)

"""Files that a page sends: waited for, bounded while they grow, kept as artifacts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from playwright.async_api import Download, Page
from playwright.async_api import Error as PlaywrightError

from swarm.browse.errors import ErrorCode, job_error

_POLL_S = 0.25
#: Files of one page that are taken; a page may begin them without end.
_KEPT = 10


class Downloads:
    """The downloads of one page, in the order in which they began.

    `on_excess` is called once, when all of them together are larger than `max_bytes`.
    """

    def __init__(self, page: Page, *, max_bytes: int, on_excess: Callable[[str], None]) -> None:
        self._max_bytes = max_bytes
        self._on_excess = on_excess
        self._begun: asyncio.Queue[Download] = asyncio.Queue()
        self._files: list[Path] = []
        self._tasks: set[asyncio.Task[None]] = set()
        page.on("download", self._on_download)

    def close(self) -> None:
        """Nobody wants them any more; the files end with the page's context."""
        for task in self._tasks:
            task.cancel()

    async def next(self, *, stage: str) -> Path:
        """The next download once it is complete. The file ends with the page's context.

        Raises:
            JobError: ACTION_FAILED, it broke off.
        """
        download = await self._begun.get()
        try:
            return Path(await download.path())
        except PlaywrightError as exc:
            message = f"the download broke off: {exc.message.splitlines()[0]}"
            raise job_error(ErrorCode.ACTION_FAILED, message, stage=stage) from exc

    def _on_download(self, download: Download) -> None:
        if len(self._files) == _KEPT:
            self._spawn(_cancel(download))
            return
        if not self._files:
            self._spawn(self._watch())
        self._files.append(_file_of(download))
        self._begun.put_nowait(download)

    async def _watch(self) -> None:
        """Also while nobody waits for them: the disk is everybody's."""
        while True:
            await asyncio.sleep(_POLL_S)
            if sum(map(_size, self._files)) > self._max_bytes:
                self._on_excess(f"the download is larger than {self._max_bytes} bytes")
                return

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _cancel(download: Download) -> None:
    with suppress(PlaywrightError):
        await download.cancel()


def _file_of(download: Download) -> Path:
    """Where it is being written, which Playwright tells in public only once it is complete."""
    artifact = download._impl_obj._artifact  # noqa: SLF001
    return Path(artifact._initializer["absolutePath"])  # noqa: SLF001


def _size(path: Path) -> int:
    """Complete, or as Chromium calls it until then."""
    for name in (path, path.with_name(f"{path.name}.crdownload")):
        try:
            return name.stat().st_size
        except OSError:
            continue
    return 0

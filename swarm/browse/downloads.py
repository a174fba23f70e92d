"""Files that a page sends: waited for, bounded while they grow, kept as artifacts."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from playwright.async_api import Download, Page
from playwright.async_api import Error as PlaywrightError

from swarm.browse.errors import ErrorCode, job_error

_POLL_S = 0.25
_KEPT = 10


class DownloadDirectory:
    """Where one browser writes what it downloads, and which file belongs to whom."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._claimed: set[str] = set()

    def claim(self) -> Path | None:
        """The file of a download that has just begun; None where that is not certain."""
        try:
            names = {entry.name for entry in self.path.iterdir()}
        except OSError:
            return None
        self._claimed &= names
        fresh = names - self._claimed
        self._claimed |= fresh
        return self.path / fresh.pop() if len(fresh) == 1 else None


class Downloads:
    """The downloads of one page, in the order in which they began."""

    def __init__(self, page: Page, directory: DownloadDirectory, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._begun: asyncio.Queue[tuple[Download, Path | None]] = asyncio.Queue(_KEPT)
        page.on("download", self._on_download)

    def _on_download(self, download: Download) -> None:
        file = self._directory.claim()
        with suppress(asyncio.QueueFull):
            self._begun.put_nowait((download, file))

    async def next(self, *, stage: str) -> Path:
        """The next download once it is complete. The file ends with the page's context.

        Raises:
            JobError: RESOURCE_LIMIT, it is too large; ACTION_FAILED, it broke off.
        """
        download, file = await self._begun.get()
        finished = asyncio.ensure_future(download.path())
        try:
            while not (await asyncio.wait([finished], timeout=_POLL_S))[0]:
                if file is not None and _size(file) > self._max_bytes:
                    raise self._too_large(stage)
            path = Path(finished.result())
        except PlaywrightError as exc:
            message = f"the download broke off: {exc.message.splitlines()[0]}"
            raise job_error(ErrorCode.ACTION_FAILED, message, stage=stage) from exc
        finally:
            if not finished.done():
                finished.cancel()
                with suppress(PlaywrightError):
                    await download.cancel()
        if _size(path) > self._max_bytes:
            raise self._too_large(stage)
        return path

    def _too_large(self, stage: str) -> Exception:
        message = f"the download is larger than {self._max_bytes} bytes"
        return job_error(ErrorCode.RESOURCE_LIMIT, message, stage=stage)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

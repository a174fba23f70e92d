"""The file of decisions: lines are appended, and it is cut before it gets long.

decisions.jsonl  decisions.jsonl.1.gz  decisions.jsonl.2.gz ...   the higher, the older
"""

from __future__ import annotations

import gzip
import logging
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

log = logging.getLogger(__name__)

#: Bytes of the file, and how many older ones are kept, each a twentieth of that.
FILE_BYTES = 8_000_000
FILES_KEPT = 200
#: Seconds in which nothing is tried after a failure: what fails may be the work of a tenth of a
#: second.
_PAUSE_S = 60.0


class DecisionLog:
    """Appends to `path`. What goes wrong is told once, and keeps nobody from deciding."""

    def __init__(
        self,
        path: Path,
        *,
        file_bytes: int = FILE_BYTES,
        files_kept: int = FILES_KEPT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._monotonic = path, monotonic
        self._handler = _Handler(path, file_bytes, files_kept)
        # A power cut or a full disk may have left half a line, which the next must not continue.
        self._may_be_torn = True
        self._failed_at: float | None = None
        self._is_told = False

    def append(self, line: str) -> None:
        now = self._monotonic()
        if self._failed_at is not None and now - self._failed_at < _PAUSE_S:
            return
        text = f"\n{line}" if self._may_be_torn else line
        try:
            self._handler.emit(logging.makeLogRecord({"msg": text}))
        except OSError as exc:
            self._failed_at, self._may_be_torn = now, True
            # What it could not write, it would try to write again.
            with suppress(OSError):
                self._handler.close()
            if not self._is_told:
                log.warning("%s not written, decisions are not recorded: %s", self._path, exc)
            self._is_told = True
        else:
            if self._is_told:
                log.info("%s is written again", self._path)
            self._failed_at, self._may_be_torn, self._is_told = None, False, False

    def close(self) -> None:
        with suppress(OSError):
            self._handler.close()


class _Handler(RotatingFileHandler):
    """Compresses what it has cut, which takes a tenth of a second for 8 MB."""

    def __init__(self, path: Path, file_bytes: int, files_kept: int) -> None:
        # It opens the file with the first line: what is wrong with it is told there.
        super().__init__(
            path, maxBytes=file_bytes, backupCount=files_kept, encoding="utf-8", delay=True
        )
        self._packed = path.with_name(f"{path.name}.gz.tmp")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's
        """Leave it to whoever logs; it is called where an exception is handled."""
        raise  # noqa: PLE0704

    def doRollover(self) -> None:  # noqa: N802 - logging's
        # First, while nothing is moved: if it fails, it will be tried again, and each time the
        # older files would move on by one.
        with (
            Path(self.baseFilename).open("rb") as plain,
            gzip.open(self._packed, "wb", 6) as packed,
        ):
            shutil.copyfileobj(plain, packed)
        super().doRollover()

    def rotation_filename(self, default_name: str) -> str:
        return f"{default_name}.gz"

    def rotate(self, source: str, dest: str) -> None:
        self._packed.replace(dest)
        Path(source).unlink()

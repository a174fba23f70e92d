"""What a process uses with all its descendants."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

_KB = 1024
#: Seconds between two looks.
_LOOK_S = 0.03


class CpuClock:
    """Counts a tree's processor seconds from now on.

    A process that ends meanwhile counts with all of its life, if its parent has waited for it, and
    else not at all: where browsers are retired some readings are off, and only a median holds.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._begun = self._read()

    def seconds(self) -> float:
        return sum(
            seconds - self._begun.get(process, 0.0) for process, seconds in self._read().items()
        )

    def _read(self) -> dict[psutil.Process, float]:
        used: dict[psutil.Process, float] = {}
        for process in _tree(self._pid):
            with suppress(psutil.Error):
                times = process.cpu_times()
                # Its children count once they have ended and it has waited for them.
                ended = times.children_user + times.children_system
                used[process] = times.user + times.system + ended
        return used


def pss_mb(pid: int) -> float:
    """Memory of the tree in MB; what processes share is counted once (PSS)."""
    return sum(_pss_kb(process.pid) for process in _tree(pid)) / _KB


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _pss_kb(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        # It has ended.
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


class PeakMemory:
    """Looks at a tree's memory as often as it can while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        #: The largest PSS that was seen, in MB.
        self.mb = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self.mb = max(self.mb, pss_mb(self._pid))

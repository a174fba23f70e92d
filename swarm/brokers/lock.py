"""A lock for what a producer's process shares, which may fork at any time."""

from __future__ import annotations

import os
import threading
from weakref import WeakSet


class ProcessLock:
    """Free in a forked process: whoever had it at the fork is a thread that stayed behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _locks.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Be nobody's."""
        self._lock = threading.Lock()


_locks: WeakSet[ProcessLock] = WeakSet()


def _renew_all() -> None:
    for lock in list(_locks):
        lock.renew()


os.register_at_fork(after_in_child=_renew_all)

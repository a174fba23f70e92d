"""Whether a worker takes messages: open, or closed by whoever has a reason to.

Celery's own way, to cancel the consumer of a queue, needs its loop, which a solo worker's task
keeps busy; and what the broker was asked for before may still come. Here whoever closes knows at
once that nothing is asked for from now on, and sees whether something still is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class Intake:
    """One for a worker's whole life, over every reconnection; any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_by: frozenset[str] = frozenset()
        self._is_taking = False
        #: Called, by whoever opens it, when messages may be taken again.
        self.on_open: Callable[[], None] = lambda: None

    @property
    def is_open(self) -> bool:
        return not self._closed_by

    @property
    def is_still(self) -> bool:
        """It is closed, and what was asked for before has come: nothing more arrives."""
        with self._lock:
            return bool(self._closed_by) and not self._is_taking

    def close(self, reason: str) -> None:
        """Closed until everybody who closed it has opened it, each by his own word."""
        with self._lock:
            self._closed_by |= {reason}

    def open(self, reason: str) -> None:
        with self._lock:
            was_closed = bool(self._closed_by)
            self._closed_by -= {reason}
            opens = was_closed and not self._closed_by
        if opens:
            self.on_open()

    def begin_taking(self) -> bool:
        """Whether messages may be asked for; then they are, until `end_taking`."""
        with self._lock:
            self._is_taking = not self._closed_by
            return self._is_taking

    def end_taking(self) -> None:
        """What was asked for is counted as taken by now, or will not come."""
        # No lock: a pool process closes what it inherits, whoever held the lock at its fork.
        self._is_taking = False

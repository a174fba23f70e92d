"""Ends of tasks that the broker was away for: sent as soon as it answers again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from swarm.delivery.scripts import is_transient

log = logging.getLogger(__name__)

#: Bounds of the pause between two attempts, in seconds.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0

#: Runs the script that ends a task, or gives it back; safe to repeat.
SendEnd = Callable[[], object]


class PendingEnds:
    """By delivery tag. A thread tries to send them while there are any.

    Until an end is sent its message is in the holder's list, and is given back should this process
    end.
    """

    def __init__(self) -> None:
        self._pending: dict[str, SendEnd] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def tags(self) -> set[str]:
        with self._lock:
            return set(self._pending)

    def add(self, tag: str, send: SendEnd) -> None:
        """Send it later; only a message's first end counts."""
        with self._lock:
            self._pending.setdefault(tag, send)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="pending-ends", daemon=True)
                self._thread.start()

    def discard(self, tag: str) -> None:
        """Its message went back after all, and came again."""
        with self._lock:
            self._pending.pop(tag, None)

    def send(self) -> bool:
        """Send them now; False if the broker is still away.

        What it refuses for good is dropped: the message goes back when this process connects anew
        or ends, or by the reaper.
        """
        with self._lock:
            pending = list(self._pending.items())
        for tag, send in pending:
            fields: dict[str, Any] = {"tag": tag}
            try:
                send()
            except Exception as exc:
                fields["reason"] = str(exc)
                if is_transient(exc):
                    log.warning("a task's end is still to be sent", extra={"fields": fields})
                    return False
                log.exception("the broker refused a task's end", extra={"fields": fields})
            with self._lock:
                if self._pending.get(tag) is send:
                    del self._pending[tag]
        return True

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closed.wait(pause_s):
            if self.send():
                pause_s = _FIRST_PAUSE_S
                with self._lock:
                    if not self._pending:
                        # Whoever adds one from here on starts another thread.
                        self._thread = None
                        return
            else:
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

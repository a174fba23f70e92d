"""Steps of our own in Celery's consumer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from celery import bootsteps

from swarm.delivery.holder import worker_holder


class SignalWakeup(bootsteps.StartStopStep):
    """Ends the event loop's wait when a signal comes, or when messages may be taken again.

    Each would be seen up to a second later. SIGCHLD among them: billiard looks for a dead pool
    process as soon as its pipe closes, which is a moment before it can be waited for, and then
    again only after up to 5 s.
    """

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._reader, writer = os.pipe()
        for end in (self._reader, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def wake() -> None:
            # Where it is full, the loop has enough to wake up for.
            with suppress(BlockingIOError):
                os.write(writer, b"\0")

        worker_holder().intake.on_open = wake

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        # Only a signal that has a handler reaches the pipe.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        hub.add_reader(self._reader, self._drain, parent.pool)

    def _drain(self, pool: Any) -> None:
        if signal.SIGCHLD in os.read(self._reader, 1024):
            pool.maintain_pool()


def leave_signals_to_parent() -> None:
    """In a pool process, which has inherited the parent's pipe and handler."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def broker_watch(on_change: Callable[[bool], None]) -> type[bootsteps.StartStopStep]:
    """A consumer step: started with each connection to the broker, stopped when it is lost."""

    class BrokerWatch(bootsteps.StartStopStep):
        requires = ("celery.worker.consumer.connection:Connection",)

        def start(self, _parent: object) -> None:
            on_change(True)  # noqa: FBT003

        def stop(self, _parent: object) -> None:
            on_change(False)  # noqa: FBT003

    return BrokerWatch

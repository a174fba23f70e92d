"""Steps of our own in Celery's consumer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from celery import bootsteps


class SignalWakeup(bootsteps.StartStopStep):
    """Ends the event loop's wait when a signal comes; it would be seen up to a second later."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._reader, writer = os.pipe()
        for end in (self._reader, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def register_with_event_loop(self, _parent: Any, hub: Any) -> None:
        hub.add_reader(self._reader, self._drain)

    def _drain(self) -> None:
        os.read(self._reader, 1024)


def broker_watch(on_change: Callable[[bool], None]) -> type[bootsteps.StartStopStep]:
    """A consumer step: started with each connection to the broker, stopped when it is lost."""

    class BrokerWatch(bootsteps.StartStopStep):
        requires = ("celery.worker.consumer.connection:Connection",)

        def start(self, _parent: object) -> None:
            on_change(True)  # noqa: FBT003

        def stop(self, _parent: object) -> None:
            on_change(False)  # noqa: FBT003

    return BrokerWatch

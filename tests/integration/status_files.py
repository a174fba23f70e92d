"""Status files of instances that do not exist, for a daemon whose systemd is a stub."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from swarm.status import InstanceStatus
from tests.builders import make_status
from tests.integration.stage import Stage


class StatusFiles:
    """Those of a stage's browser instances, kept fresh."""

    def __init__(self, stage: Stage) -> None:
        self._directory = stage.settings.worker.status_directory
        self._statuses: dict[int, InstanceStatus] = {}
        self._stop = threading.Event()

    def say(self, number: int, *, busy: bool) -> None:
        """It has a task, or has been idle for a minute."""
        self._statuses[number] = make_status(
            pool="browser",
            number=number,
            host="here",
            pid=4711,
            active=int(busy),
            idle_since=None if busy else time.monotonic() - 60,
        )

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Written anew all the time, as instances do."""
        thread = threading.Thread(target=self._keep)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(0.2):
            for status in list(self._statuses.values()):
                replace(status, written_at=time.monotonic()).write(self._directory)

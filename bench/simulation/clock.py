"""Virtual time: nothing happens between two events, so nobody waits for it."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Clock:
    """Events in the order of their times; those of the same time in the order they were set."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Have it happen at this time, or now if that is past."""
        heapq.heappush(self._events, (max(time, self.now), next(self._numbers), event))

    def after(self, delay_s: float, event: Callable[[], None]) -> None:
        self.at(self.now + delay_s, event)

    def advance(self, until: float) -> None:
        """Let everything up to and at that time happen."""
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        self.now = max(self.now, until)

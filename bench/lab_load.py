"""Work that makes a fleet go up and down: a trickle that never ends, and many small waves.

A seed gives the same work every time. Analysis tasks are long by their markup, which costs a
processor; pages are long because their server waits, which costs next to nothing.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from lab.hosts import PAGES_URL
from swarm.client import Client
from swarm.errors import SwarmError
from swarm.settings import TaskType

#: Mean seconds between two tasks of the trickle.
_TRICKLE_S: dict[TaskType, float] = {"analysis": 0.5, "browser": 4.0}
#: Seconds from one wave to the next, and tasks of a wave; each at least and at most.
_PAUSE_S: dict[TaskType, tuple[float, float]] = {"analysis": (12.0, 18.0), "browser": (14.0, 24.0)}
_WAVE: dict[TaskType, tuple[int, int]] = {"analysis": (20, 60), "browser": (3, 8)}
#: Rows of the table that is analysed: from a hundredth of a second to a fifth.
_ROWS = (20, 1500)
#: Milliseconds for which the page's server waits.
_PAGE_MS = (100, 5000)


@dataclass(frozen=True, slots=True, order=True)
class Arrival:
    """A task, so many seconds after the work began."""

    at_s: float
    number: int
    """Of all; what tells two of one moment apart."""
    task_type: TaskType = field(compare=False)
    payload: dict[str, Any] = field(compare=False)


def arrivals(seed: int) -> Iterator[Arrival]:
    """The tasks in the order of time, without end."""
    chance = random.Random(f"load {seed}")
    sources: list[tuple[float, int, TaskType, Iterator[float]]] = []
    for task_type in _TRICKLE_S:
        for times in (_trickle(task_type, chance), _waves(task_type, chance)):
            sources.append((next(times), len(sources), task_type, times))
    heapq.heapify(sources)
    number = 0
    while True:
        at_s, source, task_type, times = heapq.heappop(sources)
        yield Arrival(at_s, number, task_type, _payload(task_type, number, chance))
        heapq.heappush(sources, (next(times), source, task_type, times))
        number += 1


def _trickle(task_type: TaskType, chance: random.Random) -> Iterator[float]:
    at_s = 0.0
    while True:
        at_s += chance.expovariate(1 / _TRICKLE_S[task_type])
        yield at_s


def _waves(task_type: TaskType, chance: random.Random) -> Iterator[float]:
    at_s = 0.0
    while True:
        at_s += chance.uniform(*_PAUSE_S[task_type])
        for _ in range(chance.randint(*_WAVE[task_type])):
            yield at_s


def _payload(task_type: TaskType, number: int, chance: random.Random) -> dict[str, Any]:
    if task_type == "browser":
        url = f"{PAGES_URL}/slow?ms={chance.randint(*_PAGE_MS)}&task={number}"
        return {"url": url, "actions": [{"kind": "text"}]}
    rows = f"<tr><td>{number}<td>granite</tr>" * chance.randint(*_ROWS)
    return {"html": f"<html><title>Task {number}</title><body><table>{rows}</table></body></html>"}


class Producer:
    """Submits the work from a thread until it is told to stop; a context manager around it."""

    def __init__(
        self, client: Client, seed: int, *, sleep: Callable[[float], bool] | None = None
    ) -> None:
        """`sleep` waits for so many seconds and tells whether to stop."""
        self._client = client
        self._seed = seed
        self._stop = threading.Event()
        self._sleep = self._stop.wait if sleep is None else sleep
        self._thread = threading.Thread(target=self._run, name="producer")
        self.accepted: list[str] = []
        self.refusals: list[str] = []
        """Tasks that were not accepted, or of which nobody knows."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Submit nothing more."""
        self._stop.set()
        self.join()

    def join(self) -> None:
        """Until it has stopped."""
        self._thread.join()

    def _run(self) -> None:
        began_at = time.monotonic()
        for arrival in arrivals(self._seed):
            if self._sleep(max(0.0, began_at + arrival.at_s - time.monotonic())):
                return
            try:
                task_id = self._client.submit(arrival.task_type, arrival.payload)
            except SwarmError as exc:
                self.refusals.append(str(exc))
            else:
                self.accepted.append(task_id)

"""What one run comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from bench.simulation.model import Run
from bench.simulation.world import Move

#: Seconds in which a start takes back a stop: the HorizontalPodAutoscaler's own window.
REVERSAL_WINDOW_S = 300.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The row of a table."""

    p50_wait_s: float
    p95_wait_s: float
    """From a task's arrival to its first start, or to the end of the trace if there was none."""
    kills: int
    """How often a task was interrupted."""
    unfinished: int
    """Tasks that had not ended when the trace did."""
    worker_hours: float
    """Of all instances, from the start that was accepted to the end of the process."""
    starts: int
    reversals: int

    @classmethod
    def of(cls, run: Run) -> Figures:
        world = run.world
        waits = sorted(
            (world.now if task.begun_at is None else task.begun_at) - task.arrived_at
            for task in world.tasks
        )
        return cls(
            round(percentile(waits, 0.50), 1),
            round(percentile(waits, 0.95), 1),
            world.kills,
            len(world.tasks) - world.ended,
            round(world.unit_seconds / 3600, 2),
            world.starts,
            reversals(world.moves),
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest rank: the smallest value that so many are not above."""
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def reversals(moves: Sequence[Move]) -> int:
    """How often instances were started within 300 s after some were stopped.

    The field calls it flapping: a scale-in that a scale-out takes back.
    """
    count = 0
    last: Move | None = None
    for move in moves:
        is_back = last is not None and last.change < 0 < move.change
        if is_back and last is not None and move.at - last.at <= REVERSAL_WINDOW_S:
            count += 1
        last = move
    return count

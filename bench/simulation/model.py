"""What a model of a scaler is to the simulation, and how one is run through a trace."""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from bench.simulation.traces import Trace
from bench.simulation.world import Fleet, World

#: Points of a plot.
_SAMPLES = 1500


@dataclass(frozen=True, slots=True)
class Beat:
    """Something that a model does again and again."""

    period_s: float
    act: Callable[[], Awaitable[float | None]]
    """Returns when to act again, if that is before its period is over."""


class Model(Protocol):
    """Looks at a world and changes it, in beats of its own."""

    def beats(self) -> Sequence[Beat]: ...


MakeModel = Callable[[World, Random], Model]


@dataclass(frozen=True, slots=True)
class Sample:
    """The fleet at one time."""

    at: float
    instances: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Run:
    """A trace that is over."""

    world: World
    samples: tuple[Sample, ...]


async def simulate(trace: Trace, fleet: Fleet, make_model: MakeModel, seed: int) -> Run:
    """Run the trace to its horizon.

    Each beat begins at a random part of its period. The same arguments give the same run.
    """
    rng = Random(f"model {seed}")
    world = World(trace, fleet, seed)
    samples: list[Sample] = []

    async def sample() -> None:
        samples.append(Sample(world.now, len(world.units), world.waiting))

    beats = [
        Beat(max(2.0, trace.horizon_s / _SAMPLES), sample),
        *make_model(world, rng).beats(),
    ]
    due = [(rng.uniform(0, beat.period_s), number) for number, beat in enumerate(beats)]
    heapq.heapify(due)
    while due[0][0] < trace.horizon_s:
        at, number = due[0]
        beat = beats[number]
        world.clock.advance(at)
        again_at = await beat.act()
        latest = at + beat.period_s
        heapq.heapreplace(due, (latest if again_at is None else min(latest, again_at), number))
    world.clock.advance(trace.horizon_s)
    return Run(world, tuple(samples))

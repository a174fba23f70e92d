"""Many stops by the real policy over random histories, and the tasks that they interrupted.

The window is 15 times shorter than the default, so that an hour has many stops. The world obeys
the product's rules (an instance that is asked to stop ends what it has), so what the drain adds is
that this is never needed: stops that met a task are counted too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count

from bench.simulation.model import simulate
from bench.simulation.ours import Ours
from bench.simulation.traces import anything
from bench.simulation.world import Fleet
from swarm.settings import ScalerSettings

_SHORTER = 15
_DEFAULTS = ScalerSettings()
SHORT_WINDOWS = ScalerSettings(stabilisation_s=_DEFAULTS.stabilisation_s / _SHORTER)


@dataclass(frozen=True, slots=True)
class ScaleDowns:
    """What came of the stops."""

    scale_downs: int
    interrupted: int
    """Tasks that were cut."""
    met_a_task: int
    """Stops that found a task when they took effect, and let it end."""
    tasks: int
    histories: int
    slipped_in: int
    """Tasks that an instance took before it was told to drain, and ended."""
    cancelled: int
    """Drains that a need took back before the stop."""

    def sentence(self) -> str:
        return (
            f"{self.scale_downs} scale-downs in {self.histories} random histories of "
            f"{self.tasks} tasks: {self.interrupted} tasks interrupted; {self.met_a_task} stops "
            f"met a task. {self.slipped_in} tasks slipped in before a drain and were done, and "
            f"{self.cancelled} drains were taken back, as work came."
        )


async def scale_down(at_least: int, seed: int) -> ScaleDowns:
    """Run one history after the other until so many instances were stopped.

    Raises:
        RuntimeError: a task was lost.
    """
    stops = kills = met = tasks = slipped_in = cancelled = 0
    for number in count():
        if stops >= at_least:
            return ScaleDowns(stops, kills, met, tasks, number, slipped_in, cancelled)
        trace = anything(1000 * seed + number)
        run = await simulate(trace, Fleet(), partial(Ours, scaler=SHORT_WINDOWS), seed + number)
        world = run.world
        if world.ended != len(world.tasks):
            raise RuntimeError(f"{trace.name}: {len(world.tasks) - world.ended} tasks did not end")
        stops += world.stops
        kills += world.kills
        met += world.met_a_task
        slipped_in += world.slipped_in
        cancelled += world.undrains
        tasks += len(world.tasks)
    raise AssertionError("count() ends nowhere")

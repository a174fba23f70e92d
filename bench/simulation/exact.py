"""An exact count without drain: one instance for each task that waits or runs, at once.

That is what Airflow's chart has KEDA count for its Celery workers ("running" and "queued",
airflow.apache.org/docs/helm-chart/stable/keda.html), here without KEDA's delays: every 2 s, as
often as our scaler, with the true number of tasks, no step and no window. Starts go to the host
with most room. What is too many is stopped at once, chosen at random as nobody looks who is busy,
and killed, as nobody waits for the end of a task.

It is neither a lower bound on waits nor on worker-hours: what is killed is done again, and what was
stopped may be wanted a moment later. While the queue cannot be seen it leaves all as it is, and
hosts that are away are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from bench.simulation.keda import free_number
from bench.simulation.model import Beat
from bench.simulation.traces import Loss
from bench.simulation.world import World

INTERVAL_S = 2.0


class Exact:
    """Counts, starts, kills."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._maximum = world.fleet.hosts * world.fleet.places

    def beats(self) -> Sequence[Beat]:
        return (Beat(INTERVAL_S, self.count),)

    async def count(self) -> None:
        world = self._world
        if world.is_lost(Loss.QUEUE):
            return
        running = [unit for unit in world.units.values() if unit.is_capacity]
        desired = min(world.waiting + world.working, self._maximum)
        room = world.room()
        for _ in range(desired - len(running)):
            host = max(room, key=lambda name: room[name], default=None)
            if host is None or room[host] <= 0:
                break
            room[host] -= 1
            world.start(host, free_number(world, host))
        within_reach = [unit for unit in running if not world.is_lost(Loss.HOST, unit.host)]
        too_many = min(max(0, len(running) - desired), len(within_reach))
        for unit in self._rng.sample(within_reach, too_many):
            world.stop(unit, patience_s=0.0)

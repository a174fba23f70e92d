"""KEDA as it comes, on a Redis list, with the HorizontalPodAutoscaler that it makes.

Its defaults (kedacore/keda, August 2026): the scaled object is polled every 30 s
(apis/keda/v1alpha1/withtriggers_types.go); a list that is not empty is active, and each replica
shall have five of its entries (pkg/scalers/redis_scaler.go). An active one goes from no replica to
one; one that has not been active for 300 s goes to none, whatever its replicas do
(pkg/scaling/executor/scale_executor.go, scale_scaledobjects.go). Between one replica and the
maximum, the HPA decides.

The HPA's (kubernetes/kubernetes, pkg/controller/podautoscaler and pkg/apis/autoscaling/v2): every
15 s the replicas that the list asks for are ceil(length / 5), unless length / 5 is within a tenth
of what runs; up by four or by all that run, whichever is more, in 15 s; down to the highest of the
last 300 s. It asks KEDA itself each time (useCachedMetrics is false). While the length is unknown,
both leave all as it is.

Whom a ReplicaSet gives up (pkg/controller/controller_utils.go, ActivePodsWithRanks): pods that are
not ready, then those on nodes with most of them, then those that became ready last, ages compared
by their binary logarithm, then any. The pod gets SIGTERM, on which Celery ends what it does and
takes nothing more, and SIGKILL after terminationGracePeriodSeconds, 30.

In favour of it: pods start as quickly as our instances do, on nodes that are there already; a task
that is killed is back in the queue at once; a node that is away keeps its pods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import ceil, log2
from random import Random

from bench.simulation.model import Beat
from bench.simulation.traces import Loss
from bench.simulation.unit import Unit
from bench.simulation.world import World

POLLING_INTERVAL_S = 30.0
COOLDOWN_S = 300.0
LIST_LENGTH = 5
SYNC_PERIOD_S = 15.0
TOLERANCE = 0.1
STABILISATION_S = 300.0
SCALE_UP_PODS = 4
GRACE_PERIOD_S = 30.0


class Keda:
    """A scaled object without a minimum, whose maximum is the fleet."""

    def __init__(self, world: World, rng: Random) -> None:
        self._world = world
        self._rng = rng
        self._maximum = world.fleet.hosts * world.fleet.places
        self._replicas = 0
        self._active_at = float("-inf")
        self._recommended: list[tuple[float, int]] = []

    def beats(self) -> Sequence[Beat]:
        return (Beat(POLLING_INTERVAL_S, self.poll), Beat(SYNC_PERIOD_S, self.sync))

    async def poll(self) -> None:
        """KEDA's own part: from none to one, and to none."""
        if not self._world.is_lost(Loss.QUEUE):
            now = self._world.now
            if self._world.waiting:
                self._active_at = now
                self._replicas = max(self._replicas, 1)
            elif self._replicas and now - self._active_at > COOLDOWN_S:
                self._replicas = 0
        self._reconcile()

    async def sync(self) -> None:
        """The HPA's part."""
        if self._replicas and not self._world.is_lost(Loss.QUEUE):
            recommended = recommend(self._world.waiting, self._replicas)
            recommended = min(max(recommended, 1), self._maximum)
            now = self._world.now
            self._recommended = [
                (at, count) for at, count in self._recommended if now - at < STABILISATION_S
            ]
            self._recommended.append((now, recommended))
            self._replicas = stabilise(self._replicas, [count for _, count in self._recommended])
        self._reconcile()

    def _reconcile(self) -> None:
        """The ReplicaSet's controller: as many pods as replicas."""
        pods = [unit for unit in self._world.units.values() if unit.is_capacity]
        room = self._world.room()
        for _ in range(self._replicas - len(pods)):
            host = max(room, key=lambda name: room[name], default=None)
            if host is None or room[host] <= 0:
                break
            room[host] -= 1
            self._world.start(host, free_number(self._world, host))
        if len(pods) > self._replicas:
            for pod in self._given_up_first(pods)[: len(pods) - self._replicas]:
                if not self._world.is_lost(Loss.HOST, pod.host):
                    self._world.stop(pod, patience_s=GRACE_PERIOD_S)

    def _given_up_first(self, pods: Sequence[Unit]) -> list[Unit]:
        on_node = Counter(pod.host for pod in pods)

        def order(pod: Unit) -> tuple[bool, int, int, float]:
            age = 0 if pod.ready_at is None else rank_of_age(self._world.now - pod.ready_at)
            return (pod.ready_at is not None, -on_node[pod.host], age, self._rng.random())

        return sorted(pods, key=order)


def recommend(length: int, replicas: int) -> int:
    """What a list of that length asks for while so many run."""
    if abs(1 - length / (LIST_LENGTH * replicas)) <= TOLERANCE:
        return replicas
    return ceil(length / LIST_LENGTH)


def stabilise(replicas: int, recommended: Sequence[int]) -> int:
    """The replicas after a sync, by the recommendations of the last 300 s, the newest last."""
    if recommended[-1] > replicas:
        return min(recommended[-1], max(replicas + SCALE_UP_PODS, 2 * replicas))
    return min(replicas, max(recommended))


def rank_of_age(age_s: float) -> int:
    """Ages of one rank count as the same."""
    return 0 if age_s < 1 else int(log2(age_s))


def free_number(world: World, host: str) -> int:
    """The lowest at which nothing runs there."""
    number = 1
    while (host, number) in world.units:
        number += 1
    return number

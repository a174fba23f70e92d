"""Places that pools of a broker that is down give to those of one that answers. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from swarm.scaler.model import HostReport, Instance, InstanceState, Observation
from swarm.scaler.places import Places
from swarm.settings import Settings


class Room:
    """What there is of them in one turn, given away one by one."""

    def __init__(
        self,
        settings: Settings,
        observation: Observation,
        places: Places,
        victims: Iterable[Instance],
    ) -> None:
        """`victims` may give theirs, in this order."""
        self._settings = settings
        self._brokers = observation.brokers
        self._places = places
        self._victims = list(victims)
        self._coming = places.free()
        for host, report in observation.hosts.items():
            if isinstance(report, HostReport):
                self.comes(host for instance in report.instances if _leaves(instance))

    def comes(self, hosts: Iterable[str]) -> None:
        """A place becomes free on each of these, and nobody need give way for it."""
        for host in hosts:
            self._coming[host] += 1

    def make(self, pool: str, count: int) -> list[Instance]:
        """Whom to drain so that the pool gets so many starts more, no more than that takes."""
        broker = self._brokers.get(self._settings.pools[pool].broker)
        if not self._victims or broker is None or broker.down_for_s is not None:
            return []
        victims = []
        for _ in range(count):
            victim = None if self._takes_what_comes(pool) else self._choose(pool)
            if victim is not None:
                victims.append(victim)
        return victims

    def _takes_what_comes(self, pool: str) -> bool:
        for host, count in self._coming.items():
            if count > 0 and self._places.may_take(host, pool):
                self._coming[host] -= 1
                return True
        return False

    def _choose(self, pool: str) -> Instance | None:
        for victim in self._victims:
            if self._places.may_take(victim.host, pool):
                self._victims.remove(victim)
                return victim
        return None


def _leaves(instance: Instance) -> bool:
    """Whether it is gone soon."""
    return instance.state is InstanceState.STOPPING and not (instance.active or instance.reserved)

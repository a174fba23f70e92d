"""Counts what a pool's decision is made of. Pure but for the counts that it keeps.

Most hosts are as they were in the turn before, and their instances the same values: those are not
counted again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarm.scaler.failing import overdue_s
from swarm.scaler.model import (
    HostReport,
    Inputs,
    Instance,
    InstanceState,
    Observation,
    Unknown,
)
from swarm.settings import PoolSettings, ScalerSettings

_CAPACITY = {InstanceState.STARTING, InstanceState.IDLE, InstanceState.BUSY}
#: What says of itself how many places it has.
_WORKS = {
    InstanceState.IDLE,
    InstanceState.BUSY,
    InstanceState.PAUSED,
    InstanceState.DRAINING,
}


@dataclass(frozen=True, slots=True)
class _Tally:
    """One pool's instances on one host."""

    states: Mapping[InstanceState, int]
    states_since: tuple[float, ...]
    """Of those that are capacity."""
    starting_since: tuple[float, ...]
    active: int
    open: int
    reserved: int
    capacity: int
    """The most that one has; 0 where none says."""
    ended: int
    service_times_s: tuple[float, ...]
    boot_time_s: float

    @classmethod
    def of(cls, instances: Iterable[Instance]) -> _Tally:
        instances = tuple(instances)
        busy = [each for each in instances if each.state is InstanceState.BUSY]
        active = sum(min(each.active, each.capacity) for each in busy)
        boots = [each.boot_time_s for each in instances if each.boot_time_s is not None]
        return cls(
            Counter(each.state for each in instances),
            tuple(each.state_since for each in instances if each.state in _CAPACITY),
            tuple(each.state_since for each in instances if each.state is InstanceState.STARTING),
            active=active,
            open=sum(each.capacity for each in busy) - active,
            reserved=sum(each.reserved for each in instances),
            capacity=max((each.capacity for each in instances if each.state in _WORKS), default=0),
            ended=sum(each.tasks_ended for each in instances),
            service_times_s=tuple(
                each.service_time_s for each in instances if each.service_time_s is not None
            ),
            boot_time_s=max(boots, default=0.0),
        )


class Tallies:
    """The instances of every host, counted by pool."""

    def __init__(self) -> None:
        self._hosts: dict[str, tuple[tuple[Instance, ...], dict[str, _Tally]]] = {}
        self._pools: dict[str, list[_Tally]] = {}
        self._away: tuple[str, ...] = ()

    def count(self, hosts: Mapping[str, HostReport | Unknown]) -> None:
        """Take in a turn's answers."""
        before, self._hosts, self._pools = self._hosts, {}, {}
        self._away = tuple(
            sorted(name for name, each in hosts.items() if isinstance(each, Unknown))
        )
        for name, report in hosts.items():
            if not isinstance(report, HostReport):
                continue
            known = before.get(name)
            if known is None or known[0] is not report.instances:
                known = (report.instances, _by_pool(report.instances))
            self._hosts[name] = known
            for pool, tally in known[1].items():
                self._pools.setdefault(pool, []).append(tally)

    def inputs(
        self,
        name: str,
        pool: PoolSettings,
        scaler: ScalerSettings,
        observation: Observation,
        *,
        drainable: int,
        suspects: Sequence[str] = (),
        breaker: bool = False,
    ) -> Inputs:
        """One pool's, of the observation whose hosts were counted last.

        `drainable` is how many of its instances may be drained; `suspects` and `breaker` are what
        `failing` says of it.
        """
        tallies = self._pools.get(name, [])
        states = Counter[InstanceState]()
        for tally in tallies:
            states.update(tally.states)
        since = observation.now - scaler.scale_up_period_s
        service_times_s = [each for tally in tallies for each in tally.service_times_s]
        boot_time_s = max((tally.boot_time_s for tally in tallies), default=0.0) or None
        expected_s = pool.expected_boot_time_s if boot_time_s is None else boot_time_s
        late = observation.now - overdue_s(expected_s)
        overdue = sum(at < late for tally in tallies for at in tally.starting_since)
        states[InstanceState.STARTING] -= overdue
        down = pool.broker in observation.confirmed_down
        return Inputs(
            observation.now,
            observation.waiting[name],
            down=observation.brokers[pool.broker].describe(pool.broker) if down else None,
            away=self._away,
            **{state.value: count for state, count in states.items()},
            overdue=overdue,
            unseen=sum(instance.pool == name for instance in observation.unseen),
            fresh=sum(at >= since for tally in tallies for at in tally.states_since),
            suspects=tuple(suspects),
            breaker=breaker,
            drainable=drainable,
            active=sum(tally.active for tally in tallies),
            open=sum(tally.open for tally in tallies),
            reserved=sum(tally.reserved for tally in tallies),
            capacity=max((tally.capacity for tally in tallies), default=0) or pool.concurrency,
            ended=sum(tally.ended for tally in tallies),
            service_time_s=sum(service_times_s) / len(service_times_s) if service_times_s else None,
            boot_time_s=boot_time_s,
        )


def _by_pool(instances: Iterable[Instance]) -> dict[str, _Tally]:
    pools: dict[str, list[Instance]] = {}
    for instance in instances:
        pools.setdefault(instance.pool, []).append(instance)
    return {pool: _Tally.of(own) for pool, own in pools.items()}

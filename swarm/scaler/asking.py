"""Whom to ask how much waits. Pure, as it decides what a fleet at rest costs its broker.

An instance that waits for messages is the signal that its queues are empty, and a bell that
nobody has rung the same for a pool of which nothing runs: then nobody is asked. Flower is worth
its commands while all of a pool's instances are busy, and while one drains, because nothing is
stopped on the instances' word alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from enum import StrEnum

from swarm.delivery.survey import Attention
from swarm.scaler.model import HostReport, Instance, InstanceState, Unknown
from swarm.settings import PoolSettings

#: Longest time in seconds between two looks at a metered broker while tasks wait there and all of a
#: pool is busy; it grows to this, and with the stretch of the budget beyond.
METERED_LOOK_S = 30.0

#: A pool at zero is looked at once in this share of the time since it last had work.
_CALM_SHARE = 0.25

#: No turn has decided yet.
NOTHING_KEPT: Mapping[str, int] = {}

#: What runs or may run, whether it waits for messages or not.
_RUNS = {
    InstanceState.STARTING,
    InstanceState.IDLE,
    InstanceState.BUSY,
    InstanceState.PAUSED,
    InstanceState.DRAINING,
    InstanceState.UNREPORTED,
}

#: What has been connected to its broker.
_WORKS = {
    InstanceState.IDLE,
    InstanceState.BUSY,
    InstanceState.PAUSED,
    InstanceState.DRAINING,
}


class Source(StrEnum):
    """Who knows how much waits in a pool's queues."""

    NOBODY = "nobody"
    """Nobody needs to be asked: they are empty."""
    FLOWER = "flower"
    BROKER = "broker"


def reported(hosts: Mapping[str, HostReport | Unknown]) -> tuple[Instance, ...]:
    """The instances on hosts that answered."""
    return tuple(
        instance
        for report in hosts.values()
        if isinstance(report, HostReport)
        for instance in report.instances
    )


def without(
    hosts: Mapping[str, HostReport | Unknown], pools: Collection[str]
) -> dict[str, HostReport | Unknown]:
    """The hosts' answers less the instances of these pools.

    They serve another broker, whose queues may have the same names.
    """
    if not pools:
        return dict(hosts)
    return {
        name: replace(report, instances=tuple(i for i in report.instances if i.pool not in pools))
        if isinstance(report, HostReport)
        else report
        for name, report in hosts.items()
    }


def tended(pools: Mapping[str, PoolSettings], instances: Iterable[Instance]) -> frozenset[str]:
    """Queues on which an instance waits; of other pools too, as CELERY_QUEUES may name them."""
    return frozenset(
        queue
        for instance in instances
        if instance.waits and instance.pool in pools
        for queue in (pools[instance.pool].queues if instance.queues is None else instance.queues)
    )


def draining(instances: Iterable[Instance]) -> frozenset[str]:
    """Pools of which an instance drains."""
    return frozenset(each.pool for each in instances if each.state is InstanceState.DRAINING)


def may_shrink(kept: int | None, instances: Iterable[Instance]) -> bool:
    """Whether more of a pool's instances run than the last turn kept, and one of them is idle.

    Else none is stopped in this turn; nor is before any turn has decided.
    """
    running = [instance for instance in instances if instance.state in _RUNS]
    return (
        kept is not None
        and len(running) > kept
        and any(instance.state is InstanceState.IDLE for instance in running)
    )


def choose(
    pools: Mapping[str, PoolSettings],
    instances: Collection[Instance],
    *,
    kept: Mapping[str, int] = NOTHING_KEPT,
    quiet: Collection[str] = (),
    doubted: Collection[str] = (),
    metered: bool = False,
) -> dict[str, Source]:
    """Whom to ask about each pool.

    `kept` is how many instances the last turn kept of each. `quiet` are queues whose bells would
    have rung if anything were waiting, `doubted` those in which something was seen waiting although
    an instance waits on them. A metered broker is asked itself: Flower asks it seven times as much.
    """
    waited_on = tended(pools, instances)
    running, shrinking = _running(instances), draining(instances)
    teller = Source.BROKER if metered else Source.FLOWER

    def source(name: str, pool: PoolSettings) -> Source:
        if waited_on.issuperset(pool.queues):
            own = [instance for instance in instances if instance.pool == name]
            sure = name not in shrinking and not set(doubted).intersection(pool.queues)
            return Source.NOBODY if sure and not may_shrink(kept.get(name), own) else teller
        if name in running and not metered:
            return Source.FLOWER
        if waited_on.union(quiet).issuperset(pool.queues):
            return Source.NOBODY
        return Source.BROKER

    return {name: source(name, pool) for name, pool in pools.items()}


def attention(
    pools: Mapping[str, PoolSettings],
    hosts: Mapping[str, HostReport | Unknown],
    *,
    metered: bool = False,
) -> Attention:
    """What the hosts' answers call for at the broker.

    The bells of a metered one are listened to while all of a pool is busy, too.
    """
    instances = reported(hosts)
    waited_on, running = tended(pools, instances), _running(instances)
    untended = {name: frozenset(pool.queues) - waited_on for name, pool in pools.items()}
    return Attention(
        close=any(isinstance(report, Unknown) for report in hosts.values())
        or any(
            instance.state is InstanceState.UNREPORTED or _lost_its_broker(instance)
            for instance in instances
        ),
        busy=any(queues and name in running for name, queues in untended.items()),
        untended=frozenset().union(*untended.values()),
        deserted=frozenset().union(
            *(queues for name, queues in untended.items() if metered or name not in running)
        ),
    )


def _lost_its_broker(instance: Instance) -> bool:
    """It may be the broker's loss, of which a survey at rest would tell minutes later.

    One that is known to be cut off may be so for days.
    """
    return instance.connected is False and instance.state in _WORKS and not instance.cut_off


def _running(instances: Iterable[Instance]) -> set[str]:
    return {instance.pool for instance in instances if instance.state in _RUNS}


def max_age_s(now: float, *, active_at: float, at_most: float) -> float:
    """How old the broker's word may be, in seconds.

    It is asked in every turn at first, and more and more rarely the longer ago the pool had work
    (`active_at`), or of a metered broker the longer it is asked.
    """
    return min(at_most, max(0.0, (now - active_at) * _CALM_SHARE))

"""How many instances each pool should have. Pure: `now` comes with the observation.

Up at once, by how many tasks would otherwise wait too long. Down slowly, only to what was
needed during the whole stabilisation window, and never on anything unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil
from statistics import fmean

from swarm.scaler.model import (
    BrokerCondition,
    Cause,
    Decision,
    Direction,
    HostReport,
    Instance,
    InstanceState,
    Observation,
    PoolMemory,
    Unknown,
)
from swarm.settings import PoolSettings, ScalerSettings

#: Turns in which all was known before anything may be stopped: after a restart of the scaler the
#: first picture may be of a moment in which a worker has just taken a task.
FRESH_TURNS_BEFORE_DOWN = 2
#: A step up may at least be this large, however few instances run.
_MINIMUM_STEP_UP = 4

_CAPACITY = {InstanceState.STARTING, InstanceState.IDLE, InstanceState.BUSY}


def confirmed_down(brokers: Mapping[str, BrokerCondition], confirm_down_s: float) -> frozenset[str]:
    """The brokers whose pools give way; none where there is no other broker to give way to."""
    if len(brokers) == 1:
        return frozenset()
    return frozenset(
        name
        for name, condition in brokers.items()
        if condition.down_for_s is not None and condition.down_for_s >= confirm_down_s
    )


@dataclass(frozen=True, slots=True)
class _Picture:
    """What one pool's decision is made of."""

    name: str
    pool: PoolSettings
    scaler: ScalerSettings
    now: float
    instances: tuple[Instance, ...]
    unseen: int
    away: tuple[str, ...]

    @property
    def running(self) -> int:
        return sum(instance.state in _CAPACITY for instance in self.instances)

    def count(self, state: InstanceState) -> int:
        return sum(instance.state is state for instance in self.instances)

    @property
    def unreported(self) -> int:
        return self.count(InstanceState.UNREPORTED)

    @property
    def present(self) -> int:
        """Instances that run, with those of which it is not known whether they work."""
        return self.running + self.unreported

    def decision(
        self,
        cause: Cause,
        reason: str,
        *,
        wanted: int,
        desired: int | None = None,
        limit: str | None = None,
    ) -> Decision:
        """The direction follows from `desired`; without one the pool holds."""
        running = self.running
        desired = running if desired is None else desired
        direction = Direction.HOLD
        if desired != running:
            direction = Direction.UP if desired > running else Direction.DOWN
        return Decision(self.name, direction, running, desired, wanted, cause, reason, limit)


def decide(
    name: str,
    pool: PoolSettings,
    scaler: ScalerSettings,
    observation: Observation,
    memory: PoolMemory,
    *,
    stoppable: int,
) -> tuple[Decision, PoolMemory]:
    """The pool's decision and what to remember for the next turn.

    `stoppable` is how many of its instances have proved idle.
    """
    picture = _Picture(
        name,
        pool,
        scaler,
        observation.now,
        observation.instances(name),
        unseen=sum(instance.pool == name for instance in observation.unseen),
        away=tuple(sorted(host for host, report in observation.hosts.items() if _is_away(report))),
    )
    waiting = observation.waiting[name]
    gives_way = pool.broker in observation.confirmed_down
    everything_known = (
        isinstance(waiting, int) and not gives_way and not picture.away and not picture.unreported
    )
    memory = replace(memory, fresh_turns=memory.fresh_turns + 1 if everything_known else 0)
    if gives_way:
        # An instance that is started could do nothing, and would take a place.
        reason = f"holding: {observation.brokers[pool.broker].describe(pool.broker)}"
        return picture.decision(Cause.BROKER_DOWN, reason, wanted=picture.running), memory
    if isinstance(waiting, Unknown):
        return _on_unknown_queue(picture, waiting), memory

    need = needed(pool, scaler, waiting, picture.instances)
    recent = tuple((at, n) for at, n in memory.needs if picture.now - at <= scaler.stabilisation_s)
    memory = replace(memory, needs=(*recent, (picture.now, need)))
    wanted = max(pool.min_instances, need + pool.spare)
    if need + pool.spare > picture.running:
        return _up(picture, f"{waiting} waiting", wanted, Cause.BACKLOG), memory
    if picture.present < pool.min_instances:
        missing = wanted - picture.unreported
        return _up(picture, "fewer than the minimum run", missing, Cause.MINIMUM), memory
    decision = _down(picture, memory, wanted, stoppable)
    if decision.direction is Direction.DOWN:
        memory = replace(memory, last_step_down_at=picture.now)
    return decision, memory


def _is_away(report: HostReport | Unknown) -> bool:
    return isinstance(report, Unknown)


def needed(
    pool: PoolSettings, scaler: ScalerSettings, waiting: int, instances: tuple[Instance, ...]
) -> int:
    """Instances that this work needs.

    A place that is busy now takes `k` of the waiting tasks within the target wait: the target
    less the time a start takes, over the time a task takes. What is left needs places of its
    own, each of which takes 1 + k. So long tasks give an exact count and short ones a backlog
    per worker.
    """
    capacity = max((instance.capacity for instance in instances), default=pool.concurrency)
    busy = [instance for instance in instances if instance.state is InstanceState.BUSY]
    busy_places = sum(min(instance.active, instance.capacity) for instance in busy)
    open_places = len(busy) * capacity - busy_places
    tasks_each = max(0.0, scaler.target_wait_s - boot_time_s(pool, instances)) / service_time_s(
        pool, instances
    )
    left = max(0.0, waiting - open_places - busy_places * tasks_each)
    return len(busy) + ceil(left / (1 + tasks_each) / capacity)


def service_time_s(pool: PoolSettings, instances: tuple[Instance, ...]) -> float:
    """Mean over the instances that have measured one, else what the configuration expects."""
    measured = [i.service_time_s for i in instances if i.service_time_s is not None]
    return max(0.01, fmean(measured)) if measured else pool.expected_service_time_s


def boot_time_s(pool: PoolSettings, instances: tuple[Instance, ...]) -> float:
    """Slowest start that an instance reports, else what the configuration expects."""
    measured = [i.boot_time_s for i in instances if i.boot_time_s is not None]
    return max(measured) if measured else pool.expected_boot_time_s


def _on_unknown_queue(picture: _Picture, waiting: Unknown) -> Decision:
    """Nothing is stopped; nothing is started but what the minimum asks for on a known fleet."""
    reason = f"holding: queue length unknown ({waiting.reason})"
    minimum = picture.pool.min_instances
    if picture.present < minimum and not picture.away:
        missing = minimum - picture.unreported
        return _up(picture, "fewer than the minimum run", missing, Cause.MINIMUM)
    return picture.decision(Cause.QUEUE_UNKNOWN, reason, wanted=picture.running)


def _up(picture: _Picture, reason: str, wanted: int, cause: Cause) -> Decision:
    running, pool = picture.running, picture.pool
    fresh = sum(
        instance.state in _CAPACITY
        and instance.state_for_s(picture.now) <= picture.scaler.scale_up_period_s
        for instance in picture.instances
    )
    settled = running - fresh
    desired, limit = wanted, None
    if desired > settled + max(_MINIMUM_STEP_UP, settled):
        desired = max(running, settled + max(_MINIMUM_STEP_UP, settled))
        limit = f"at most {_MINIMUM_STEP_UP} or double in {picture.scaler.scale_up_period_s:g} s"
    # What stops or is paused still runs, and what cannot be seen may well be working: all of them
    # count against the maximum.
    no_use = picture.count(InstanceState.STOPPING) + picture.count(InstanceState.PAUSED)
    held = no_use + picture.unreported + picture.unseen
    ceiling = pool.max_instances - held
    if desired >= ceiling < wanted:
        desired, limit = max(running, ceiling), f"max_instances {pool.max_instances}"
    if desired == running:
        cause = Cause.AT_LIMIT
    return picture.decision(cause, reason, wanted=wanted, desired=desired, limit=limit)


def _down(picture: _Picture, memory: PoolMemory, wanted: int, stoppable: int) -> Decision:
    running, scaler = picture.running, picture.scaler
    keep = max(wanted, max(need for _, need in memory.needs) + picture.pool.spare)

    def hold(cause: Cause, reason: str) -> Decision:
        return picture.decision(cause, reason, wanted=wanted)

    if running <= wanted:
        return hold(Cause.ENOUGH, "as many as needed")
    if running <= keep:
        reason = f"{keep} were needed in the last {scaler.stabilisation_s:g} s"
        return hold(Cause.STABILISING, reason)
    if picture.away:
        reason = f"holding: {', '.join(picture.away)} away, nothing is stopped"
        return hold(Cause.HOST_AWAY, reason)
    if picture.unreported:
        reason = f"holding: {picture.unreported} not reporting, nothing is stopped"
        return hold(Cause.UNREPORTED, reason)
    if memory.fresh_turns < FRESH_TURNS_BEFORE_DOWN:
        return hold(Cause.WARMING_UP, "holding: too early to stop anything")
    last = memory.last_step_down_at
    if last is not None and picture.now - last < scaler.scale_down_period_s:
        return hold(Cause.SURPLUS, f"{running - keep} too many, waiting for the next step down")
    if stoppable == 0:
        reason = f"{running - keep} too many, none idle for {scaler.idle_before_stop_s:g} s"
        return hold(Cause.NOT_IDLE, reason)
    step = max(1, running * scaler.scale_down_percent // 100)
    count = min(running - keep, stoppable, step)
    return picture.decision(
        Cause.SURPLUS,
        f"{keep} needed, {stoppable} idle for {scaler.idle_before_stop_s:g} s",
        wanted=wanted,
        desired=running - count,
        limit=None if count == running - keep else f"{count} a step",
    )

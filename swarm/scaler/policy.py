"""How many instances each pool should have. Pure: all that it reads is handed to it.

Up at once, by how many tasks would otherwise wait too long. Down slowly, only to what was
needed during the whole stabilisation window, and never on anything unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from swarm.scaler.model import (
    Basis,
    BrokerCondition,
    Cause,
    Decision,
    Direction,
    Inputs,
    Limits,
    PoolMemory,
    Reckoning,
    Unknown,
)
from swarm.settings import PoolSettings, ScalerSettings

#: Turns in which all was known before anything may be stopped: after a restart of the scaler the
#: first picture may be of a moment in which a worker has just taken a task.
FRESH_TURNS_BEFORE_DOWN = 2
#: A step up may at least be this large, however few instances run.
_MINIMUM_STEP_UP = 4


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
class _Case:
    """What one pool's decision is made of."""

    name: str
    pool: PoolSettings
    scaler: ScalerSettings
    inputs: Inputs
    limits: Limits
    reckoning: Reckoning | None = None

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
        running = self.inputs.running
        desired = running if desired is None else desired
        direction = Direction.HOLD
        if desired != running:
            direction = Direction.UP if desired > running else Direction.DOWN
        basis = Basis(self.inputs, self.limits, self.reckoning)
        return Decision(
            self.name, direction, running, desired, wanted, cause, reason, limit, basis=basis
        )


def decide(
    name: str,
    pool: PoolSettings,
    scaler: ScalerSettings,
    inputs: Inputs,
    limits: Limits,
    memory: PoolMemory,
) -> tuple[Decision, PoolMemory]:
    """The pool's decision and what to remember for the next turn."""
    case = _Case(name, pool, scaler, inputs, limits)
    waiting = inputs.waiting
    everything_known = (
        isinstance(waiting, int)
        and inputs.down is None
        and not inputs.away
        and not inputs.unreported
    )
    memory = replace(memory, fresh_turns=memory.fresh_turns + 1 if everything_known else 0)
    if inputs.down is not None:
        # An instance that is started could do nothing, and would take a place.
        reason = f"holding: {inputs.down}"
        return case.decision(Cause.BROKER_DOWN, reason, wanted=inputs.running), memory
    if isinstance(waiting, Unknown):
        return _on_unknown_queue(case, waiting), memory

    recent = [(at, n) for at, n in memory.needs if inputs.now - at <= scaler.stabilisation_s]
    reckoning = reckon(pool, scaler, inputs, limits, waiting, [need for _, need in recent])
    memory = replace(memory, needs=(*recent, (inputs.now, reckoning.need)))
    case = replace(case, reckoning=reckoning)
    wanted = max(limits.minimum.count, reckoning.need + limits.spare.count)
    if reckoning.need + limits.spare.count > inputs.running:
        return _up(case, f"{waiting} waiting", wanted, Cause.BACKLOG), memory
    if inputs.present < limits.minimum.count:
        missing = wanted - inputs.unreported
        return _up(case, "fewer than the minimum run", missing, Cause.MINIMUM), memory
    decision = _down(case, memory, wanted, reckoning.keep)
    if decision.direction is Direction.DOWN:
        memory = replace(memory, last_step_down_at=inputs.now)
    return decision, memory


def reckon(
    pool: PoolSettings,
    scaler: ScalerSettings,
    inputs: Inputs,
    limits: Limits,
    waiting: int,
    recent_needs: Sequence[int] = (),
) -> Reckoning:
    """Instances that this work needs, and how many are kept.

    A place that is busy now takes `k` of the waiting tasks within the target wait: the target
    less the time a start takes, over the time a task takes. What is left needs places of its
    own, each of which takes 1 + k. So long tasks give an exact count and short ones a backlog
    per worker.
    """
    service_time_s, boot_time_s = times_s(pool, inputs)
    tasks_each = max(0.0, scaler.target_wait_s - boot_time_s) / service_time_s
    left = max(0.0, waiting - inputs.open - inputs.active * tasks_each)
    need = inputs.busy + ceil(left / (1 + tasks_each) / inputs.capacity)
    keep = max(limits.minimum.count, max([need, *recent_needs]) + limits.spare.count)
    return Reckoning(service_time_s, boot_time_s, tasks_each, need, keep)


def times_s(pool: PoolSettings, inputs: Inputs) -> tuple[float, float]:
    """Of a task and of a start: as measured, else as the configuration expects."""
    service_time_s, boot_time_s = inputs.service_time_s, inputs.boot_time_s
    return (
        pool.expected_service_time_s if service_time_s is None else max(0.01, service_time_s),
        pool.expected_boot_time_s if boot_time_s is None else boot_time_s,
    )


def _on_unknown_queue(case: _Case, waiting: Unknown) -> Decision:
    """Nothing is stopped; nothing is started but what the minimum asks for on a known fleet."""
    inputs, minimum = case.inputs, case.limits.minimum.count
    if inputs.present < minimum and not inputs.away:
        missing = minimum - inputs.unreported
        return _up(case, "fewer than the minimum run", missing, Cause.MINIMUM)
    reason = f"holding: queue length unknown ({waiting.reason})"
    return case.decision(Cause.QUEUE_UNKNOWN, reason, wanted=inputs.running)


def _up(case: _Case, reason: str, wanted: int, cause: Cause) -> Decision:
    inputs, limits = case.inputs, case.limits
    running = inputs.running
    if limits.no_starts is not None:
        reason = f"{reason}, but starts are paused: {limits.no_starts}"
        return case.decision(Cause.STARTS_PAUSED, reason, wanted=wanted)
    settled = running - inputs.fresh
    desired, limit = wanted, None
    if desired > settled + max(_MINIMUM_STEP_UP, settled):
        desired = max(running, settled + max(_MINIMUM_STEP_UP, settled))
        limit = f"at most {_MINIMUM_STEP_UP} or double in {case.scaler.scale_up_period_s:g} s"
    # What stops, is paused or drained still runs, and what cannot be seen may well be working: all
    # of them count against the maximum.
    no_use = inputs.stopping + inputs.paused + inputs.draining
    held = no_use + inputs.unreported + inputs.unseen
    ceiling = limits.maximum.count - held
    if desired >= ceiling < wanted:
        desired = max(running, ceiling)
        limit = f"{limits.maximum.set_by} {limits.maximum.count}"
    if desired == running:
        cause = Cause.AT_LIMIT
    return case.decision(cause, reason, wanted=wanted, desired=desired, limit=limit)


def _down(case: _Case, memory: PoolMemory, wanted: int, keep: int) -> Decision:
    inputs, scaler = case.inputs, case.scaler
    running = inputs.running

    def hold(cause: Cause, reason: str) -> Decision:
        return case.decision(cause, reason, wanted=wanted)

    if running <= wanted:
        return hold(Cause.ENOUGH, "as many as needed")
    if running <= keep:
        reason = f"{keep} were needed in the last {scaler.stabilisation_s:g} s"
        return hold(Cause.STABILISING, reason)
    if case.limits.no_stops is not None:
        reason = f"{running - keep} too many, but stops are paused: {case.limits.no_stops}"
        return hold(Cause.STOPS_PAUSED, reason)
    if inputs.away:
        reason = f"holding: {', '.join(inputs.away)} away, nothing is stopped"
        return hold(Cause.HOST_AWAY, reason)
    if inputs.unreported:
        reason = f"holding: {inputs.unreported} not reporting, nothing is stopped"
        return hold(Cause.UNREPORTED, reason)
    if memory.fresh_turns < FRESH_TURNS_BEFORE_DOWN:
        return hold(Cause.WARMING_UP, "holding: too early to stop anything")
    last = memory.last_step_down_at
    if last is not None and inputs.now - last < scaler.scale_down_period_s:
        return hold(Cause.SURPLUS, f"{running - keep} too many, waiting for the next step down")
    if inputs.proved == 0:
        reason = f"{running - keep} too many, none idle for {scaler.idle_before_stop_s:g} s"
        return hold(Cause.NOT_IDLE, reason)
    step = max(1, running * scaler.scale_down_percent // 100)
    count = min(running - keep, inputs.proved, step)
    return case.decision(
        Cause.SURPLUS,
        f"{keep} needed, {inputs.proved} idle for {scaler.idle_before_stop_s:g} s",
        wanted=wanted,
        desired=running - count,
        limit=None if count == running - keep else f"{count} a step",
    )

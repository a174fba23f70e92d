"""How many instances each pool should have. Pure: all that it reads is handed to it.

Up at once, by how many tasks would otherwise wait too long. Down at once too, to what the work
of the stabilisation window makes worth keeping, but never on anything unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from swarm.scaler.demand import reckon
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
#: Seconds between two starts while nobody knows how much waits.
BLIND_STEP_S = 30.0
#: Seconds for which nothing is started while the instances are unknown too.
BLIND_FREEZE_S = 600.0


def confirmed_down(brokers: Mapping[str, BrokerCondition], confirm_down_s: float) -> frozenset[str]:
    """The brokers whose pools give way; none where there is no other broker to give way to."""
    if len(brokers) == 1:
        return frozenset()
    return frozenset(
        name
        for name, condition in brokers.items()
        if condition.down_for_s is not None and condition.down_for_s >= confirm_down_s
    )


def is_surplus_in_the_next_turn(decision: Decision) -> bool:
    """Whether all that keeps some of the pool is that only this turn knew them too many."""
    return (
        decision.cause in {Cause.ENOUGH, Cause.STABILISING}
        and decision.basis is not None
        and decision.basis.reckoning is not None
        and decision.basis.reckoning.keep < decision.running
        and decision.basis.inputs.drainable > 0
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
        memory = replace(memory, blind_since=None)
        # An instance that is started could do nothing, and would take a place.
        reason = f"holding: {inputs.down}"
        return case.decision(Cause.BROKER_DOWN, reason, wanted=inputs.running), memory
    if isinstance(waiting, Unknown):
        return _blindly(case, waiting, memory)
    memory = replace(memory, blind_since=None)
    reckoning, memory = reckon(pool, scaler, inputs, limits, waiting, memory)
    # What is only now too many is stopped in the next turn: whether tasks wait was not asked of
    # anybody but the instances if the turn before kept them all.
    keep = max(reckoning.keep, reckoning.keep if memory.keep is None else memory.keep)
    memory = replace(memory, keep=reckoning.keep)
    case = replace(case, reckoning=reckoning)
    wanted = max(limits.minimum.count, reckoning.need + limits.spare.count)
    if inputs.running <= limits.maximum.count:
        if reckoning.need + limits.spare.count > inputs.running:
            return _up(case, f"{waiting} waiting", wanted, Cause.BACKLOG), memory
        if inputs.present < limits.minimum.count:
            missing = wanted - inputs.unreported
            return _up(case, "fewer than the minimum run", missing, Cause.MINIMUM), memory
    return _down(case, memory, wanted, keep), memory


def _blindly(case: _Case, waiting: Unknown, memory: PoolMemory) -> tuple[Decision, PoolMemory]:
    """Nobody knows how much waits: nothing is stopped, and little is started.

    With all hosts known, what the minimum asks for, and then one after the other while none is
    idle; else nothing for ten minutes.
    """
    inputs, limits = case.inputs, case.limits
    reason = f"queue length unknown ({waiting.reason})"
    is_known = not inputs.away and not inputs.unreported
    since = None if is_known else inputs.now if memory.blind_since is None else memory.blind_since
    memory = replace(memory, blind_since=since)
    if inputs.present < limits.minimum.count and not inputs.away:
        missing = limits.minimum.count - inputs.unreported
        return _up(case, "fewer than the minimum run", missing, Cause.MINIMUM), memory
    last = memory.last_blind_start_at
    if since is not None:
        is_due = inputs.now - since >= BLIND_FREEZE_S
        count = case.pool.blind_instances - inputs.unreported - inputs.unseen
    else:
        is_due = not (inputs.idle or inputs.starting) and (
            last is None or inputs.now - last >= BLIND_STEP_S
        )
        count = min(case.pool.blind_instances, inputs.running + 1)
    if is_due and count > inputs.running:
        decision = _up(case, reason, count, Cause.BLIND)
        if decision.direction is Direction.UP:
            memory = replace(memory, last_blind_start_at=inputs.now)
        return decision, memory
    return case.decision(Cause.QUEUE_UNKNOWN, f"holding: {reason}", wanted=inputs.running), memory


def _up(case: _Case, reason: str, wanted: int, cause: Cause) -> Decision:
    inputs, limits = case.inputs, case.limits
    running = inputs.running
    # Those that drain run already, and are taken back before anything is started.
    settled = running - inputs.fresh + inputs.draining
    desired, limit = wanted, None
    step = max(case.scaler.scale_up_at_least, settled)
    if desired > settled + step:
        desired = max(running, settled + step)
        limit = f"at most {step} starts in {case.scaler.scale_up_period_s:g} s"
    if inputs.breaker and desired > (probing := running + inputs.draining + (inputs.starting == 0)):
        desired = probing
        limit = f"starts fail on {', '.join(inputs.suspects)}: one at a time"
    # What stops, is paused, drained or late still runs, and what is not seen may well be working:
    # all of them count against the maximum.
    no_use = inputs.stopping + inputs.paused + inputs.drained + inputs.overdue
    held = no_use + inputs.unreported + inputs.unseen
    ceiling = limits.maximum.count - held
    if desired >= ceiling < wanted:
        desired = max(running, ceiling)
        limit = f"{limits.maximum.set_by} {limits.maximum.count}"
    if limits.no_starts is not None:
        reason = f"{reason}, but starts are paused: {limits.no_starts}"
        desired, limit = min(desired, running + inputs.draining), None
        cause = Cause.STARTS_PAUSED
    elif desired == running:
        cause = Cause.AT_LIMIT
    return case.decision(cause, reason, wanted=wanted, desired=desired, limit=limit)


def _down(case: _Case, memory: PoolMemory, wanted: int, keep: int) -> Decision:
    inputs = case.inputs
    running = inputs.running

    def hold(cause: Cause, reason: str) -> Decision:
        return case.decision(cause, reason, wanted=wanted)

    if running <= min(wanted, keep):
        return hold(Cause.ENOUGH, "as many as needed")
    if running <= keep:
        reason = f"{keep} are worth keeping, by the last {case.scaler.stabilisation_s:g} s"
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
    if inputs.drainable == 0:
        return hold(Cause.NOT_IDLE, f"{running - keep} too many, none idle")
    count = min(running - keep, inputs.drainable)
    return case.decision(
        Cause.SURPLUS,
        f"{keep} kept, {inputs.drainable} idle",
        wanted=wanted,
        desired=running - count,
    )

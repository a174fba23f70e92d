"""Why a pool has the number of instances that it has, with the figures filled in. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from swarm.scaler.demand import reckon, with_pace
from swarm.scaler.model import (
    Basis,
    Cause,
    Decision,
    Inputs,
    PoolMemory,
    Reckoning,
    Unknown,
)
from swarm.scaler.story import describe
from swarm.settings import PoolSettings, ScalerSettings

#: No number of waiting tasks is looked for beyond this.
_MOST_WAITING = 1_000_000

_STATES = (
    "starting",
    "idle",
    "busy",
    "paused",
    "stopping",
    "failed",
    "unreported",
    "draining",
    "drained",
    "overdue",
)


def explain(decision: Decision, pool: PoolSettings, scaler: ScalerSettings) -> Iterator[str]:
    """What it was made of, the limit that won, and what would change it: a sentence a line."""
    yield describe(decision)
    basis = decision.basis
    if basis is None:
        return
    yield from _indented(_inputs(basis.inputs))
    if basis.reckoning is not None and isinstance(basis.inputs.waiting, int):
        yield from _indented(_formula(basis, basis.reckoning, basis.inputs.waiting, scaler))
    yield from _indented(_limits(basis, decision))
    yield f"  another one starts {_to_start(decision, basis, pool, scaler)}"
    yield f"  one stops {_to_stop(decision, basis, scaler)}"


def as_values(decision: Decision, pool: PoolSettings, scaler: ScalerSettings) -> Mapping[str, Any]:
    """The same for programs."""
    basis = decision.basis
    return {
        **asdict(decision),
        "to_start": basis and _to_start(decision, basis, pool, scaler),
        "to_stop": basis and _to_stop(decision, basis, scaler),
    }


def _indented(sentences: Iterator[str]) -> Iterator[str]:
    return (f"  {sentence}" for sentence in sentences)


def _inputs(inputs: Inputs) -> Iterator[str]:
    waiting = inputs.waiting
    if isinstance(waiting, Unknown):
        yield f"waiting: unknown ({waiting.reason})"
    else:
        yield f"waiting: {waiting}"
    counts = {state: getattr(inputs, state) for state in _STATES}
    yield "instances: " + (", ".join(f"{n} {state}" for state, n in counts.items() if n) or "none")
    if inputs.busy:
        yield (
            f"tasks: {inputs.active} run, {inputs.reserved} taken and not begun, "
            f"{inputs.open} places of busy instances are free"
        )
    if inputs.unseen:
        yield f"unseen: {inputs.unseen} on hosts that do not answer may still run"
    if inputs.away:
        yield f"away: {', '.join(inputs.away)}"
    if inputs.suspects:
        yield f"starts fail on: {', '.join(inputs.suspects)}"
    if inputs.down is not None:
        yield inputs.down


def _formula(basis: Basis, made: Reckoning, waiting: int, scaler: ScalerSettings) -> Iterator[str]:
    inputs, limits = basis.inputs, basis.limits
    task = "measured" if inputs.service_time_s is not None else "expected_service_time_s"
    start = "measured" if inputs.boot_time_s is not None else "expected_boot_time_s"
    yield (
        f"times: a task takes {made.service_time_s:.3g} s ({task}), "
        f"a start {made.boot_time_s:.3g} s ({start})"
    )
    yield f"pace: {made.pace:.3g} tasks end in a second"
    yield (
        f"k: int(({scaler.target_wait_s:g} - {made.boot_time_s:.3g}) / {made.service_time_s:.3g}) "
        f"= {made.tasks_each} tasks that a new place takes after its first, within target_wait_s"
    )
    left = max(0.0, waiting - inputs.open - made.pace * scaler.target_wait_s)
    yield (
        f"left: {waiting} waiting - {inputs.open} free places of busy instances - "
        f"{made.pace:.3g} x {scaler.target_wait_s:g} s = {left:.3g}"
    )
    yield (
        f"need: {inputs.busy} busy + ceil({left:.3g} / (1 + {made.tasks_each}) / "
        f"{inputs.capacity}) = {made.need}"
    )
    yield (
        f"keep: the most of need + spare {made.need + limits.spare.count}, minimum "
        f"{limits.minimum.count} and {made.worth} worth keeping by the last "
        f"{scaler.stabilisation_s:g} s, at most {limits.maximum.count} = {made.keep}"
    )


def _limits(basis: Basis, decision: Decision) -> Iterator[str]:
    limits = basis.limits
    yield "limits: " + ", ".join(
        f"{name} {limit.count} ({limit.set_by})"
        for name, limit in (
            ("minimum", limits.minimum),
            ("maximum", limits.maximum),
            ("spare", limits.spare),
        )
    )
    if limits.no_starts is not None:
        yield f"scaling out is paused {limits.no_starts}"
    if limits.no_stops is not None:
        yield f"scaling in is paused {limits.no_stops}"
    if decision.limit is not None:
        yield f"the limit that won: {decision.limit}"


def _to_start(decision: Decision, basis: Basis, pool: PoolSettings, scaler: ScalerSettings) -> str:
    inputs, limits = basis.inputs, basis.limits
    if limits.no_starts is not None:
        return f"no sooner than scaling out is resumed (paused {limits.no_starts})"
    if inputs.down is not None:
        return "once the broker answers"
    if decision.desired > decision.running:
        return "now"
    if decision.cause is Cause.AT_LIMIT:
        return f"no sooner than its limit lets it: {decision.limit}"
    if isinstance(inputs.waiting, Unknown):
        return "once the queue's length is known, or fewer than the minimum run"
    if inputs.running >= limits.maximum.count:
        return f"never: {limits.maximum.count} is the maximum ({limits.maximum.set_by})"
    more = _waiting_for(inputs.running + 1, basis, pool, scaler)
    return "by no backlog" if more is None else f"with {more} waiting"


def _waiting_for(
    instances: int, basis: Basis, pool: PoolSettings, scaler: ScalerSettings
) -> int | None:
    """The fewest waiting tasks with which so many are needed, all else as it is."""
    pace = basis.reckoning.pace if basis.reckoning else 0.0
    memory = with_pace(PoolMemory(), basis.inputs, pace)

    def suffices(waiting: int) -> bool:
        made, _ = reckon(pool, scaler, basis.inputs, basis.limits, waiting, memory)
        return made.need + basis.limits.spare.count >= instances

    low, high = 0, _MOST_WAITING
    if not suffices(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if suffices(middle) else (middle + 1, high)
    return low


def _to_stop(decision: Decision, basis: Basis, scaler: ScalerSettings) -> str:
    inputs, limits = basis.inputs, basis.limits
    if decision.desired < decision.running:
        return "now"
    if inputs.running == 0:
        return "never: none runs"
    if inputs.running <= limits.minimum.count:
        return f"never: {limits.minimum.count} is the minimum ({limits.minimum.set_by})"
    if limits.no_stops is not None:
        return f"no sooner than scaling in is resumed (paused {limits.no_stops})"
    return _to_know(inputs) or _to_be_too_many(decision, basis, scaler)


def _to_know(inputs: Inputs) -> str | None:
    """Nothing is stopped on what is not known; None when all is."""
    if inputs.away:
        return f"once {', '.join(inputs.away)} answers"
    if inputs.unreported:
        return f"once the {inputs.unreported} that do not report do so"
    if isinstance(inputs.waiting, Unknown) or inputs.down is not None:
        return "once the queue's length is known"
    return None


def _to_be_too_many(decision: Decision, basis: Basis, scaler: ScalerSettings) -> str:
    match decision.cause:
        case Cause.WARMING_UP:
            return "no sooner than in the next turn, when all has been known twice"
        case Cause.NOT_IDLE:
            return "when one is idle that may be drained"
        case _:
            fewer = basis.inputs.running - 1
            window_s = scaler.stabilisation_s
            return f"when the last {window_s:g} s make no more than {fewer} worth keeping"

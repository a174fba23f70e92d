"""Decisions as lines of JSON, and back. Pure.

A line is a turn, with the pools of which there is something new: `Recorder` chooses them. It has
what the policy needs to decide anew (`replay`), and for people the reason, the limit and the
actions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from swarm.scaler.limits import Orders, Override
from swarm.scaler.model import ActionResult, Cause, Decision, Direction, Inputs, Outcome
from swarm.settings import ScalerSettings

VERSION = 1
#: Seconds after which a pool is told of again when its figures have changed, and when they have
#: not. A hundred pools at rest are some 30 MB in a day, before they are compressed.
CHANGED_S = 10.0
UNCHANGED_S = 60.0

#: The time is the line's.
_INPUTS = {field.name: field.default for field in fields(Inputs) if field.name != "now"}
_OVERRIDE = {field.name: field.default for field in fields(Override)}


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """What one pool's decision was made of, and what it was."""

    inputs: Inputs
    direction: Direction
    running: int
    desired: int
    wanted: int
    cause: Cause
    reason: str
    limit: str | None = None
    pace: float = 0.0
    """Tasks that ended in a second, by the turns before."""
    overrides: tuple[Override, ...] = ()
    """What people wanted instead of config.yaml."""

    def decision(self, pool: str) -> Decision:
        return Decision(
            pool,
            self.direction,
            self.running,
            self.desired,
            self.wanted,
            self.cause,
            self.reason,
            self.limit,
        )


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """One line. `at` is Unix time."""

    at: float
    scale_up_period_s: float
    """A setting that has gone into the inputs."""
    pools: Mapping[str, PoolRecord]


_ADAPTER = TypeAdapter(TurnRecord)


class Recorder:
    """Remembers what it told last of each pool."""

    def __init__(self, scaler: ScalerSettings, *, dry_run: bool = False) -> None:
        self._scaler, self._dry_run = scaler, dry_run
        self._told: dict[str, tuple[Decision, Inputs]] = {}

    def line(self, outcome: Outcome, orders: Orders, at: datetime) -> str | None:
        """The turn, without a line's end; None when nothing in it is worth one."""
        acted_on = {result.action.pool for result in outcome.results}
        pools = {}
        for name, decision in outcome.decisions.items():
            if decision.basis is None:
                continue
            inputs = decision.basis.inputs
            if name in acted_on or self._is_news(name, decision, inputs):
                self._told[name] = (decision, inputs)
                pools[name] = _pool(decision, inputs, orders.overrides.get(name, ()))
        if not pools:
            return None
        document = {
            "version": VERSION,
            "at": round(at.timestamp(), 3),
            "scale_up_period_s": self._scaler.scale_up_period_s,
            "pools": pools,
            "actions": [_action(result) for result in outcome.results],
            **({"dry_run": True} if self._dry_run else {}),
        }
        return json.dumps(document, separators=(",", ":"))

    def _is_news(self, name: str, decision: Decision, inputs: Inputs) -> bool:
        if name not in self._told:
            return True
        told, told_inputs = self._told[name]
        if _gist(told) != _gist(decision):
            return True
        age_s = inputs.now - told_inputs.now
        if age_s < CHANGED_S:
            return False
        return age_s >= UNCHANGED_S or replace(told_inputs, now=inputs.now) != inputs


def _gist(decision: Decision) -> tuple[object, ...]:
    """What makes a decision another one. How long each number was needed decides later ones."""
    made = decision.basis and decision.basis.reckoning
    needed = (made.need, made.keep) if made else None
    return (decision.cause, decision.running, decision.desired, decision.limit, needed)


def _pool(decision: Decision, inputs: Inputs, overrides: Iterable[Override]) -> dict[str, Any]:
    made = decision.basis and decision.basis.reckoning
    document = {
        "inputs": _without_defaults(asdict(inputs), _INPUTS),
        **{
            name: getattr(decision, name)
            for name in ("direction", "running", "desired", "wanted", "cause", "reason", "limit")
        },
        "pace": made.pace or None if made else None,
        "overrides": [_without_defaults(asdict(each), _OVERRIDE) for each in overrides],
    }
    return {name: value for name, value in document.items() if value not in (None, [])}


def _without_defaults(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name, default in defaults.items() if values[name] != default}


def _action(result: ActionResult) -> dict[str, Any]:
    action = result.action
    error = {} if result.error is None else {"error": result.error}
    return {action.verb: [action.host, action.pool, action.number], **error}


def parse(line: str) -> TurnRecord:
    """Read a line; the inputs' time is Unix time too.

    Raises:
        ValueError: it is none, or of another version.
    """
    document = json.loads(line)
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise ValueError(f"not a line of version {VERSION}")
    try:
        for pool in document["pools"].values():
            pool["inputs"]["now"] = document["at"]
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError("no pools with inputs") from exc
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as exc:
        wrong = ", ".join(".".join(map(str, detail["loc"])) for detail in exc.errors()[:3])
        raise ValueError(f"wrong {wrong}") from exc

"""What a turn means to people: journal lines, the STATUS line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from swarm.scaler.model import (
    ActionResult,
    Cause,
    Decision,
    Direction,
    Drain,
    HostReport,
    InstanceState,
    Observation,
    Outcome,
    Renew,
    Start,
    Stop,
    Undrain,
    Unknown,
)
from swarm.scaler.orders import Order, OrderKind

_DIGITS = re.compile(r"[0-9]+")
_COUNTS = re.compile(r"[0-9]+ of [0-9]+ starts")
_VERBS = {
    Start: "start",
    Drain: "drain",
    Renew: "renew the drain of",
    Undrain: "undrain",
    Stop: "stop",
}
_HOLDING = {Cause.QUEUE_UNKNOWN, Cause.BROKER_DOWN, Cause.HOST_AWAY, Cause.UNREPORTED}
#: Under a lively load a pool is at one of these between any two steps: no news but after trouble.
_CALM = {Cause.ENOUGH, Cause.STABILISING, Cause.NOT_IDLE}
#: What a calm turn is told after: it says that this is over.
_TROUBLED = _HOLDING | {
    Cause.BLIND,
    Cause.WARMING_UP,
    Cause.STARTS_PAUSED,
    Cause.STOPS_PAUSED,
}


#: Names in a line; the journal has named every host that is away.
_NAMED = 5
#: Seconds of calm after which a step or a limit is news, though it was told before.
_FORGOTTEN_S = 60.0


class Narrator:
    """Tells each change once: what repeats itself from turn to turn is not said again."""

    def __init__(self, *, dry_run: bool = False) -> None:
        self._dry_run = dry_run
        self._would: set[tuple[str, str]] = set()
        self._told: dict[str, Decision] = {}
        self._calm_since: dict[str, float] = {}
        self._errors: dict[tuple[str, str], str | None] = {}
        self._away: dict[str, set[str]] = {}
        """Hosts that do not answer, and the reasons that were told since they last did."""
        self._down: frozenset[str] = frozenset()
        self._troubled: set[str] = set()
        self._notes: frozenset[str] = frozenset()
        self.held_since: dict[str, float] = {}
        """Pools that something holds, each with the turn's time at which it began."""

    def lines(self, outcome: Outcome) -> Iterator[tuple[bool, str]]:
        """(is a warning, sentence) for everything worth a line in the journal."""
        now = outcome.observation.now
        self.held_since = {
            name: self.held_since.get(name, now)
            for name, decision in outcome.decisions.items()
            if decision.cause in _HOLDING
        }
        yield from self._broker_lines(outcome.observation)
        yield from self._host_lines(outcome.observation)
        yield from self._instance_lines(outcome)
        for name, decision in outcome.decisions.items():
            if self._is_news(name, decision, now):
                yield decision.cause in _HOLDING, describe(decision)
                self._told[name] = decision
        for note in outcome.notes:
            if _without_counts(note) not in self._notes:
                yield False, note
        self._notes = frozenset(map(_without_counts, outcome.notes))
        yield from self._action_lines(outcome.results)

    def _is_news(self, name: str, decision: Decision, now: float) -> bool:
        told = self._told.get(name)
        if decision.direction is Direction.HOLD and decision.cause in _CALM:
            self._calm_since.setdefault(name, now)
            return told is None or told.cause in _TROUBLED
        calm_s = now - self._calm_since.pop(name, now)
        return told is None or calm_s >= _FORGOTTEN_S or _gist(told) != _gist(decision)

    def _broker_lines(self, observation: Observation) -> Iterator[tuple[bool, str]]:
        """That a broker does not answer, or does again, the view tells as soon as it knows."""
        for name in sorted(observation.confirmed_down - self._down):
            reason = observation.brokers[name].reason
            yield True, f"the {name} broker is down: {reason}; its pools give way"
        self._down = observation.confirmed_down

    def _host_lines(self, observation: Observation) -> Iterator[tuple[bool, str]]:
        for name, report in observation.hosts.items():
            if not isinstance(report, Unknown):
                if self._away.pop(name, None):
                    yield False, f"{name} answers again"
                continue
            told = self._away.setdefault(name, set())
            if (kind := _DIGITS.sub("", report.reason)) not in told:
                told.add(kind)
                yield True, f"{name} does not answer, its instances are unknown: {report.reason}"

    def _instance_lines(self, outcome: Outcome) -> Iterator[tuple[bool, str]]:
        """An instance that is paused near its limits says so in its own journal."""
        troubled: dict[str, str] = {}
        for report in outcome.observation.hosts.values():
            for instance in report.instances if isinstance(report, HostReport) else ():
                if instance.state is InstanceState.UNREPORTED:
                    troubled[instance.name] = f"runs but does not report: {instance.trouble}"
                elif instance.cut_off:
                    troubled[instance.name] = f"takes no tasks: {instance.trouble}"
                elif instance.key in outcome.overdue:
                    why = outcome.overdue[instance.key]
                    troubled[instance.name] = f"drains for longer than a task may take: {why}"
        for name, trouble in troubled.items():
            if name not in self._troubled:
                yield True, f"{name} {trouble}"
        self._troubled = set(troubled)

    def _action_lines(self, results: Iterable[ActionResult]) -> Iterator[tuple[bool, str]]:
        if self._dry_run:
            yield from self._would_lines(results)
            return
        for result in results:
            action = result.action
            verb = _VERBS[type(action)]
            unit = f"celery-{action.pool}@{action.number} on {action.host}"
            if result.error is None and not isinstance(action, Renew):
                yield False, f"{verb} {unit}"
            elif result.error is not None and self._errors.get((verb, unit)) != result.error:
                yield True, f"{verb} {unit} failed: {result.error}"
            self._errors[verb, unit] = result.error

    def _would_lines(self, results: Iterable[ActionResult]) -> Iterator[tuple[bool, str]]:
        """What nobody does is decided anew in every turn, and told once."""
        would = {
            (
                _VERBS[type(result.action)],
                f"celery-{result.action.pool}@{result.action.number} on {result.action.host}",
            )
            for result in results
            if not isinstance(result.action, Renew)
        }
        for verb, unit in sorted(would - self._would):
            yield False, f"would {verb} {unit}"
        self._would = would


def _gist(decision: Decision) -> tuple[object, ...]:
    """What makes a decision news. A step that finds no host is asked for again in every turn.

    How far up it would go changes with what waits; that it went up is seen in what runs.
    """
    if decision.direction is Direction.HOLD:
        return (decision.cause,)
    if decision.direction is Direction.UP:
        return (decision.cause, decision.direction, decision.running)
    return (decision.cause, decision.direction, decision.running, decision.desired)


def _without_counts(note: str) -> str:
    """How many starts wait changes from turn to turn; that they do, and why, is news."""
    return _COUNTS.sub("starts", note)


def describe(decision: Decision) -> str:
    """`browser: up 1 -> 5 (120 waiting, want 9, limit: at most 4 or double in 10 s)`."""
    if decision.direction is Direction.HOLD:
        head = f"{decision.pool}: stay at {decision.running}"
    else:
        head = f"{decision.pool}: {decision.direction} {decision.running} -> {decision.desired}"
    parts = [decision.reason]
    if decision.wanted not in {decision.running, decision.desired}:
        parts.append(f"want {decision.wanted}")
    if decision.limit:
        parts.append(f"limit: {decision.limit}")
    return f"{head} ({', '.join(parts)})"


def status_line(
    outcome: Outcome,
    maxima: dict[str, int],
    orders: Iterable[Order] = (),
    held_since: Mapping[str, float] = MappingProxyType({}),
) -> str:
    """`browser 4 of 6, 1 draining, waiting 12; analysis 0 of 2, waiting 0`, and what holds it.

    Pins hold nothing back but their own instance, and there may be many.
    """
    parts = []
    for name, decision in outcome.decisions.items():
        waiting = outcome.observation.waiting[name]
        length = str(waiting) if isinstance(waiting, int) else "unknown"
        draining = sum(
            instance.state is InstanceState.DRAINING
            for instance in outcome.observation.instances(name)
        )
        going = f", {draining} draining" if draining else ""
        parts.append(f"{name} {decision.running} of {maxima[name]}{going}, waiting {length}")
    held = sorted(
        {
            f"{decision.reason}{_for_how_long(decision, held_since, outcome.observation.now)}"
            for decision in outcome.decisions.values()
            if decision.cause in _HOLDING
        }
    )
    away = sorted(h for h, r in outcome.observation.hosts.items() if isinstance(r, Unknown))
    if away:
        held.append(f"away: {_several(away)}")
    told = [str(order) for order in orders if order.kind is not OrderKind.PIN]
    return "; ".join([*parts, *held, *told])


def _several(names: Sequence[str]) -> str:
    """The first few where they are many."""
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} others"


def _for_how_long(decision: Decision, held_since: Mapping[str, float], now: float) -> str:
    """` for 40 s`; nothing in the first second, and where the reason tells it itself."""
    held_s = now - held_since.get(decision.pool, now)
    return f" for {held_s:.0f} s" if held_s >= 1 and decision.cause is not Cause.BROKER_DOWN else ""

"""How a broker is, from how real operations on it end. Pure: the time is an argument.

```
        timeout, 3 slow ones          no answer 3 times            enough good ones, for long enough
   ok ──────────────────────> slow ─────────────────────> down     ───────────────────────────> ok
   ok ── unreachable, 2 connections lost ──────────────> down
   ok ── the limit's error ────────────────────────────> limited   (and between these three)
   any ─ wrong password, certificate ──────────────────> refused ── an answer ─────────────────> ok
```

Leaving `ok` is immediate, so that a producer blocks once. Every other state lasts for `dwell_s` at
least, which bounds how often it can change. `refused` never leads to another broker: what is wrong
is wrong with us, and is left by an answer only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from swarm.brokers.verdict import State, Verdict


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When states change. Seconds, and counts of operations one after another."""

    slow_s: float = 1.0
    """An answer that took longer is a slow one: a third of what producers are promised."""
    fast_s: float = 0.5
    """An answer below this helps a slow broker up again; in between nothing is said."""
    slow_answers: int = 3
    lost_connections: int = 2
    """One alone is how an idle connection ends that the service has closed."""
    timeouts_until_down: int = 3
    dwell_s: float = 10.0
    """What a state other than `ok` lasts at least."""
    good_answers: int = 3
    stable_s: float = 10.0
    """How long all answers must have been good before it is `ok` again."""
    first_trial_s: float = 5.0
    last_trial_s: float = 60.0
    """Pause between two trials of a broker that is avoided; it doubles from first to last."""
    last_limited_trial_s: float = 600.0
    """The same of one at its limit, which takes no more for hours or days."""


@dataclass(frozen=True, slots=True)
class Health:
    """A broker's state, since when, and why; what follows counts towards the next change."""

    state: State
    since: float
    reason: str = ""
    slow: int = 0
    lost: int = 0
    timeouts: int = 0
    good: int = 0
    good_since: float = 0.0
    trials_failed: int = 0
    next_trial: float = 0.0

    @property
    def fails_over(self) -> bool:
        """Whether producers go to the other broker."""
        return self.state in {"slow", "down", "limited"}

    def breaker(self, now: float) -> Literal["closed", "half-open", "open"]:
        """Half-open: one operation may be tried, after `begin_trial`."""
        if not self.fails_over:
            return "closed"
        return "half-open" if now >= self.next_trial else "open"

    def begin_trial(self, now: float, rules: HealthRules) -> Health:
        """Nobody else tries meanwhile; one that never ends gives way after a while."""
        return replace(self, next_trial=now + _pause(self, self.trials_failed, rules))


def observe(
    health: Health, verdict: Verdict, seconds: float, now: float, rules: HealthRules
) -> Health:
    """The health after an operation that took so long and ended so."""
    health = _count(health, verdict, seconds, now, rules)
    state = _next(health, verdict, now, rules)
    if state == health.state:
        return health
    reason = verdict.reason or f"answers after {seconds:.1f} s"
    return Health(
        state,
        now,
        "" if state == "ok" else reason,
        timeouts=health.timeouts,
        next_trial=now + rules.first_trial_s,
    )


def _count(
    health: Health, verdict: Verdict, seconds: float, now: float, rules: HealthRules
) -> Health:
    if verdict.state == "ok":
        if seconds > rules.slow_s:
            return _tried(replace(health, slow=health.slow + 1, lost=0, timeouts=0), now, rules)
        if health.state == "slow" and seconds > rules.fast_s:
            return replace(health, slow=0, lost=0, timeouts=0, good=0)
        begun = health.good_since if health.good else now
        # The next trial follows soon: the pauses were for a broker that does not answer.
        soon = min(health.next_trial, now + rules.stable_s / rules.good_answers)
        return replace(
            health,
            slow=0,
            lost=0,
            timeouts=0,
            good=health.good + 1,
            good_since=begun,
            trials_failed=0,
            next_trial=soon,
        )
    lost = health.lost + 1 if verdict.state == "down" and verdict.uncertain else health.lost
    timeouts = health.timeouts + 1 if verdict.state == "slow" else health.timeouts
    return _tried(replace(health, lost=lost, timeouts=timeouts), now, rules)


def _tried(health: Health, now: float, rules: HealthRules) -> Health:
    """A trial that was not good: the next one is later."""
    failed = health.trials_failed + 1 if health.fails_over else 0
    return replace(
        health, good=0, trials_failed=failed, next_trial=now + _pause(health, failed, rules)
    )


def _pause(health: Health, failed: int, rules: HealthRules) -> float:
    last_s = rules.last_limited_trial_s if health.state == "limited" else rules.last_trial_s
    return min(last_s, rules.first_trial_s * 2.0 ** min(failed, 16))


def _next(health: Health, verdict: Verdict, now: float, rules: HealthRules) -> State:
    if health.state != "ok" and now < health.since + rules.dwell_s:
        return health.state
    if health.state == "refused":
        return "ok" if verdict.state == "ok" else "refused"
    if verdict.state in {"limited", "refused"}:
        return verdict.state
    if verdict.state == "down":
        lost_too_few = verdict.uncertain and health.lost < rules.lost_connections
        return health.state if lost_too_few and health.state == "ok" else "down"
    if verdict.state == "slow":
        if health.timeouts >= rules.timeouts_until_down:
            return "down"
        return "slow" if health.state == "ok" else health.state
    if health.state == "ok":
        return "slow" if health.slow >= rules.slow_answers else "ok"
    stable = health.good >= rules.good_answers and now >= health.good_since + rules.stable_s
    return "ok" if stable else health.state

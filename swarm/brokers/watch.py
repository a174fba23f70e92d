"""A broker's health as the threads of one process share it, and who hears of its changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from swarm.brokers.health import Health, HealthRules, observe
from swarm.brokers.lock import ProcessLock
from swarm.brokers.verdict import State, Verdict


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state, for a log line and for metrics."""

    broker: str
    before: State
    after: State
    reason: str
    lasted_s: float
    """How long it was in the state before."""


class Watch:
    """Fed by every operation on one broker."""

    def __init__(
        self,
        broker: str,
        listen: Callable[[Change], None],
        *,
        rules: HealthRules | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`listen` hears of each change, one at a time; it may not call the watch."""
        self._broker, self._listen, self._clock = broker, listen, clock
        self._rules = rules or HealthRules()
        self._lock = ProcessLock()
        self._health = Health("ok", clock())

    @property
    def health(self) -> Health:
        return self._health

    def tell(self, verdict: Verdict, seconds: float) -> None:
        """An operation ended so, after so long."""
        with self._lock:
            now, before = self._clock(), self._health
            self._health = after = observe(before, verdict, seconds, now, self._rules)
            if after.state != before.state:
                lasted_s = now - before.since
                change = Change(self._broker, before.state, after.state, after.reason, lasted_s)
                self._listen(change)

    def permit(self) -> Literal["use", "trial", "avoid"]:
        """Whether to use the broker now; one caller at a time is given a trial."""
        with self._lock:
            now = self._clock()
            breaker = self._health.breaker(now)
            if breaker == "half-open":
                self._health = self._health.begin_trial(now, self._rules)
        if breaker == "closed":
            return "use"
        return "trial" if breaker == "half-open" else "avoid"

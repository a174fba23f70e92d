"""What became of the instances that the scaler stopped. Pure but for what it remembers.

A stop waits for a task that slipped in after the last idle report, and systemd kills an instance
that takes longer than its unit allows. That must not happen: it is told and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from swarm.scaler.model import (
    HostReport,
    Instance,
    InstanceKey,
    InstanceState,
    Outcome,
    Start,
    Stop,
)

#: Seconds within which a start takes a stop back: longer than a pool's windows, so that it was a
#: stop too many. As in the simulation.
REVERSAL_WINDOW_S = 300.0


class Event(StrEnum):
    """What may come of a stop."""

    KILL = "kill"
    """An instance that was stopped ended by a signal: SIGKILL after its unit's TimeoutStopSec=, or
    somebody's, the kernel's, the watchdog's. Its task was cut, if it had one."""
    LATE_TASK = "late-task"
    """An instance took a task between its last idle report and its stop, which waits for it."""
    REVERSAL = "reversal"
    """Instances were started within `REVERSAL_WINDOW_S` after some were stopped."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One of them."""

    event: Event
    pool: str
    sentence: str


class Aftermath:
    """Follows each stop until the instance is gone."""

    def __init__(self) -> None:
        self._stopped: set[InstanceKey] = set()
        self._late: set[InstanceKey] = set()
        self._stopped_at: dict[str, float] = {}

    def take(self, outcome: Outcome) -> Iterator[Finding]:
        """What this turn shows of stops before it, and what it did."""
        yield from self._follow(outcome)
        now = outcome.observation.now
        for result in outcome.results:
            action = result.action
            if isinstance(action, Start):
                at = self._stopped_at.pop(action.pool, None)
                if at is not None and now - at <= REVERSAL_WINDOW_S:
                    sentence = f"{action.pool}: started {now - at:.0f} s after a stop"
                    yield Finding(Event.REVERSAL, action.pool, sentence)
            elif isinstance(action, Stop):
                # One that failed may have been accepted all the same.
                self._stopped.add((action.host, action.pool, action.number))
                self._stopped_at[action.pool] = now

    def _follow(self, outcome: Outcome) -> Iterator[Finding]:
        if not self._stopped:
            return
        for host in {host for host, _, _ in self._stopped}:
            report = outcome.observation.hosts.get(host)
            if not isinstance(report, HostReport):
                continue
            seen = {instance.key: instance for instance in report.instances}
            for key in [each for each in self._stopped if each[0] == host]:
                yield from self._judge(key, seen.get(key))

    def _judge(self, key: InstanceKey, instance: Instance | None) -> Iterator[Finding]:
        if instance is not None and instance.state is InstanceState.STOPPING:
            if (instance.active or instance.reserved) and key not in self._late:
                self._late.add(key)
                sentence = f"{instance.name} took a task as it was stopped, which waits for it"
                yield Finding(Event.LATE_TASK, instance.pool, sentence)
            return
        if instance is not None and instance.killed:
            sentence = f"{instance.name} was killed as it was stopped"
            yield Finding(Event.KILL, instance.pool, sentence)
        # It is gone, or runs: it was started again, or its stop was refused.
        self._stopped.discard(key)
        self._late.discard(key)

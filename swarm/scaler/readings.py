"""What each process says it has asked of a metered broker, and what all of it comes to. Pure.

Each count grows while its process lives; the accounts remember what it was, so that a restart
counts nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from swarm.brokers.budget import Budget, Ledger
from swarm.scaler.model import Instance

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Reading:
    """What one process says it has asked since it started."""

    name: str
    """Component (workers, producers, scaler, flower), and who of it: `workers h1 browser 3`."""
    total: int
    process: int = 0
    """What tells it from the one before it; 0 if there is but one for ever."""
    is_new_at_zero: bool = True
    """Whether all of it counts when it is seen for the first time; else the broker keeps it, it is
    older than we are, and goes back in time with the broker."""

    @property
    def component(self) -> str:
        return self.name.partition(" ")[0]

    def since(self, known: tuple[int, int] | None) -> int:
        """What was asked since the reading before it: (process, total), None without one."""
        if known is None:
            return self.total if self.is_new_at_zero else 0
        process, total = known
        if process == self.process and self.total >= total:
            return self.total - total
        # It began anew: with its process, or with its broker's data. But a replica that takes over,
        # or a backup, has an older count, all of which was booked before.
        if not self.is_new_at_zero and self.total > total // 2:
            return 0
        return self.total


@dataclass(frozen=True, slots=True)
class Closure:
    """For what the broker was closed to producers: this period's limit."""

    until: datetime
    limit: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """The ledger, with the last reading of each process."""

    ledger: Ledger
    seen: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Name -> process, total."""
    heard: frozenset[str] = frozenset()
    """Names that were read in this run. What the others say first may be of any time since the run
    before: it counts, and says nothing of the rate, nor of what a task asks."""
    lately: Mapping[str, int] = field(default_factory=dict)
    """What was asked between the last readings and those before them, by component."""
    closed: Closure | None = None
    """The last one; it may be over."""

    @classmethod
    def begin(cls, budget: Budget, now: datetime) -> Accounts:
        return cls(Ledger(budget.began(now)))

    def after(self, readings: Iterable[Reading], budget: Budget, now: datetime) -> Accounts:
        """With what was asked since the last readings."""
        ledger, seen = self.ledger.at(now, budget), dict(self.seen)
        heard, lately = set(self.heard), Counter[str]()
        for reading in readings:
            known = seen.get(reading.name)
            # Who is new after the first readings has just begun.
            is_recent = reading.name in self.heard or (known is None and bool(self.heard))
            heard.add(reading.name)
            seen[reading.name] = (reading.process, reading.total)
            asked = reading.since(known)
            ledger = ledger.add(reading.component, asked, now, is_recent=is_recent)
            if is_recent:
                lately[reading.component] += asked
        return Accounts(ledger, seen, frozenset(heard), lately, self.closed)

    def correct(self, used_so_far: int) -> Accounts:
        """With what people say was used, if that is new; whether to close is judged anew then."""
        ledger = self.ledger.correct(used_so_far)
        return self if ledger is self.ledger else replace(self, ledger=ledger, closed=None)

    def to_json(self) -> dict[str, Any]:
        seen = {name: list(each) for name, each in self.seen.items()}
        closed = self.closed and {
            "until": self.closed.until.isoformat(),
            "limit": self.closed.limit,
        }
        return {
            "version": _VERSION,
            "ledger": self.ledger.to_json(),
            "seen": seen,
            "closed": closed,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Accounts:
        """Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` when it is none."""
        if document["version"] != _VERSION:
            raise ValueError(f"version {document['version']!r}, expected {_VERSION}")
        seen = {
            str(name): (int(process), int(total))
            for name, (process, total) in document["seen"].items()
        }
        closed = document.get("closed")
        if closed is not None:
            until = datetime.fromisoformat(closed["until"])
            closed = Closure(until, int(closed["limit"]))
        return cls(Ledger.from_json(document["ledger"]), seen, closed=closed)


def readings_of(instances: Iterable[Instance]) -> list[Reading]:
    """What the instances of a metered broker's pools say."""
    return [
        Reading(f"workers {each.host} {each.pool} {each.number}", each.requests, each.pid)
        for each in instances
        if each.requests is not None
    ]

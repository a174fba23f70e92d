"""What a metered broker may be asked in a period, what was asked, and where that leads. Pure.

Times are aware datetimes in UTC; rates are requests an hour.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

#: Shares of the limit at which people are told.
WARNINGS = (0.7, 0.9)
#: What must remain, in multiples of what is in the queues and being done, so that it gets done.
RESERVE = 1.5
#: The time over which the rate is measured: long enough for a quiet fleet's rare requests, short
#: enough to notice that something has changed.
_WINDOW = timedelta(hours=1)
_BUCKET = timedelta(minutes=1)
_LIMIT = re.compile(r"([1-9][0-9]{0,11})/(month|day)")


@dataclass(frozen=True, slots=True)
class Budget:
    """So many requests until the next reset, at midnight UTC."""

    limit: int
    per: Literal["month", "day"]
    reset_day: int = 1
    """Day of the month, at most 28; of no meaning for a day's budget."""

    @classmethod
    def parse(cls, text: str, *, reset_day: int = 1) -> Budget:
        """Raises `ValueError` unless it is like `500000/month`."""
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not like 500000/month or 10000/day")
        return cls(int(match[1]), "day" if match[2] == "day" else "month", reset_day)

    def began(self, now: datetime) -> datetime:
        """When the period began in which `now` lies."""
        midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.per == "day":
            return midnight
        begun = midnight.replace(day=self.reset_day)
        return begun if begun <= midnight else _month_before(begun)

    def ends(self, now: datetime) -> datetime:
        """When the next one begins."""
        begun = self.began(now)
        if self.per == "day":
            return begun + timedelta(days=1)
        return (begun.replace(day=1) + timedelta(days=32)).replace(day=self.reset_day)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Requests of one period, by component; `recent` is the last hour of them, by minute."""

    began: datetime
    used: Mapping[str, int] = field(default_factory=dict)
    said: int = 0
    """The setting `used_so_far` that was last taken over."""
    elsewhere: int = 0
    """What was used beyond what is counted here, by that setting."""
    since: datetime | None = None
    """Since when is counted without a break; the rate is that of this time."""
    recent: tuple[tuple[datetime, int], ...] = ()
    left: Ledger | None = None
    """The period that was left for this one: a clock that was set may come back to it."""

    @property
    def total(self) -> int:
        return max(0, sum(self.used.values()) + self.elsewhere)

    def at(self, now: datetime, budget: Budget) -> Ledger:
        """The same, or the next period's; or that which was left, with all that was counted."""
        ledger = self.resumed(now) if self._is_ahead_of(now) else self
        began = budget.began(now)
        if began == self.began:
            return ledger
        left = replace(self, since=None, recent=(), left=None)
        if self.left is not None and self.left.began == began:
            used, elsewhere = self.left.used, self.left.elsewhere
            return replace(ledger, began=began, used=used, elsewhere=elsewhere, left=left)
        return replace(ledger, began=began, used={}, elsewhere=0, left=left)

    def _is_ahead_of(self, now: datetime) -> bool:
        """Whether the clock was set back: the rate would be unknown until it caught up."""
        if self.since is not None and now < self.since:
            return True
        return bool(self.recent) and now < self.recent[-1][0]

    def correct(self, used_so_far: int) -> Ledger:
        """With what the service says was used, when somebody has said it anew."""
        if used_so_far == self.said:
            return self
        elsewhere = used_so_far - sum(self.used.values())
        return replace(self, said=used_so_far, elsewhere=elsewhere)

    def add(
        self, component: str, requests: int, now: datetime, *, is_recent: bool = True
    ) -> Ledger:
        """With these requests; `is_recent` unless nobody knows when they were made."""
        if requests <= 0:
            return self
        used = {**self.used, component: self.used.get(component, 0) + requests}
        recent = _added(self.recent, requests, now) if is_recent else self.recent
        return replace(self, used=used, recent=recent)

    def resumed(self, now: datetime) -> Ledger:
        """Counting begins, after a start: what happened since is not in `recent`."""
        return replace(self, since=now, recent=())

    def per_hour(self, now: datetime) -> float | None:
        """Requests an hour; None in the first minutes, when nobody can tell."""
        if self.since is None or now - self.since < 5 * _BUCKET:
            return None
        window = min(_WINDOW, now - self.since)
        begun = now - window
        counted = sum(requests for at, requests in self.recent if at > begun - _BUCKET)
        return counted / (window / timedelta(hours=1))

    def to_json(self) -> dict[str, Any]:
        return {
            "version": 1,
            "began": self.began.isoformat(),
            "used": dict(self.used),
            "said": self.said,
            "elsewhere": self.elsewhere,
            "left": None if self.left is None else self.left.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Ledger:
        """Raises `ValueError`, `KeyError`, `TypeError` or `AttributeError` when it is none."""
        if document["version"] != 1:
            raise ValueError(f"version {document['version']!r}, expected 1")
        began = datetime.fromisoformat(document["began"])
        if began.tzinfo is None:
            raise ValueError("began has no time zone")
        left = document.get("left")
        return cls(
            began,
            {str(name): int(requests) for name, requests in document["used"].items()},
            int(document["said"]),
            int(document["elsewhere"]),
            left=None if left is None else cls.from_json(left),
        )


@dataclass(frozen=True, slots=True)
class Outlook:
    """Where a period's use leads."""

    used: int
    limit: int
    resets_at: datetime
    per_hour: float | None
    expected: int | None
    """Used by the end of the period at this rate; None while there is no rate."""
    exhausted_at: datetime | None = None
    """When the limit is reached at this rate, if that is before the end of the period."""

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def share(self) -> float:
        return self.used / self.limit

    @property
    def warning(self) -> float | None:
        """The highest of `WARNINGS` that is reached."""
        return max((each for each in WARNINGS if self.share >= each), default=None)

    @property
    def stretch(self) -> float:
        """By how much waits between requests are to be longer, from 1 to 8."""
        ahead = max(self.used, self.expected or 0) / self.limit
        if ahead < WARNINGS[0]:
            return 1.0
        if ahead < WARNINGS[1]:
            return 2.0
        return 4.0 if ahead < 1 else 8.0

    def is_for_the_rest(self, tasks: int, requests_per_task: float) -> bool:
        """Whether what remains is needed for these tasks, so that no more should come."""
        return self.remaining <= RESERVE * tasks * requests_per_task or self.remaining == 0


def outlook(ledger: Ledger, budget: Budget, now: datetime) -> Outlook:
    """What `ledger`, of the period in which `now` lies, comes to."""
    ends, used, per_hour = budget.ends(now), ledger.total, ledger.per_hour(now)
    if per_hour is None:
        return Outlook(used, budget.limit, ends, None, None)
    expected = used + round(per_hour * ((ends - now) / timedelta(hours=1)))
    exhausted_at = None
    if expected > budget.limit:
        # Beyond the limit there need be no rate: a service that refuses all is asked no more.
        hours = (budget.limit - used) / per_hour if used < budget.limit else 0.0
        exhausted_at = now + timedelta(hours=hours)
    return Outlook(used, budget.limit, ends, per_hour, expected, exhausted_at)


def _added(
    recent: tuple[tuple[datetime, int], ...], requests: int, now: datetime
) -> tuple[tuple[datetime, int], ...]:
    kept = tuple(each for each in recent if now - each[0] <= _WINDOW + _BUCKET)
    if kept and timedelta(0) <= now - kept[-1][0] < _BUCKET:
        at, before = kept[-1]
        return (*kept[:-1], (at, before + requests))
    return (*kept, (now, requests))


def _month_before(day: datetime) -> datetime:
    return (day.replace(day=1) - timedelta(days=1)).replace(day=day.day)

"""What a victim's wait is worth: without Redis' outages, and by which bound. Pure.

A process's death is bound by 3 s: its unit or its parent gives back what it held. Where Redis was
away when that had to be done, it is the next start of the instance or the reaper that does it, and
the reaper begins to watch anew after an outage, for a whole lease. So whoever was struck in an
outage, or less than those 3 s before one and not back by then, is bound by what a host's death is
bound by; and so is a frozen worker, whose lease has to run out. An outage that begins later
excuses nobody: what it found not given back was late already.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

#: What was struck. `lease`: a frozen worker.
VictimKind = Literal["process", "host", "lease"]
#: Who has to keep the promise.
Bound = Literal["process", "host", "reaper"]
#: Seconds within which 95 of 100 samples are back.
P95_S: dict[Bound, float] = {"process": 3.0, "host": 75.0, "reaper": 75.0}


@dataclass(slots=True)
class Outage:
    """A time in which Redis is away on purpose, monotonic."""

    begin: float
    end: float = math.inf
    """Unknown while it lasts."""
    recovery_grace_s: float = 0.0
    """After it, until its clients are back: no excuse for a wait, but a give-back may fail."""
    prefix: str = ""
    """Of the holders from which it is away."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One message that was recovered."""

    fault: str
    bound: Bound
    away_s: float
    """Seconds of its wait in which nobody could have given it back."""
    seconds: float
    """The others: what is judged."""


def measure(
    kind: VictimKind, fault: str, holder: str, wait: tuple[float, float], outages: Iterable[Outage]
) -> Sample:
    """The sample of this holder's wait, from one moment to another."""
    struck_at, back_at = wait
    outages = [each for each in outages if holder.startswith(each.prefix)]
    due_at = min(back_at, struck_at + P95_S["process"])
    bound: Bound
    if kind == "host":
        bound = "host"
    elif kind == "lease" or any(
        each.begin < due_at and struck_at < each.end + each.recovery_grace_s for each in outages
    ):
        bound = "reaper"
    else:
        bound = "process"
    away_s = covered_s(outages, struck_at, back_at)
    return Sample(fault, bound, away_s, back_at - struck_at - away_s)


def covered_s(outages: Iterable[Outage], begin: float, end: float) -> float:
    """Seconds between two moments in which there was any outage."""
    covered, reached = 0.0, begin
    for outage in sorted(outages, key=lambda each: each.begin):
        until = min(outage.end, end)
        covered += max(0.0, until - max(outage.begin, reached))
        reached = max(reached, until)
    return covered


def p95(seconds: Iterable[float]) -> float | None:
    """The 95th percentile by nearest rank; None of nothing."""
    ordered = sorted(seconds)
    return ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else None

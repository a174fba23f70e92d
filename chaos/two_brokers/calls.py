"""What producers say of their calls, in files that outlive them; and what that says. Pure reading.

Times are those of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.submissions import Entry, LineLog, SubmissionStatus, read_lines

#: Seconds that a call may take; the longest that somebody waits for a broker that does not answer.
PATIENCE_S = 3.0
#: Seconds from which a call was blocked.
BLOCKED_S = 1.0


@dataclass(frozen=True, slots=True)
class Call:
    """One submission, as its producer saw it."""

    producer: int
    job: int
    kind: str
    status: SubmissionStatus
    at: float
    seconds: float
    ids: tuple[str, ...] = ()
    """Of the tasks that it is made of; those of a workflow in their order."""
    broker: str = ""
    """Who has it by its id; empty if that tells nothing, or not surely."""
    uncertain: bool = False
    """A broker broke off: it may be there, too."""
    hidden: tuple[str, ...] = ()
    """Tasks that come with it, and end as any other."""
    error: str = ""

    @property
    def entry(self) -> Entry:
        return Entry(self.job, self.status, self.kind, self.ids)


class CallLog(LineLog):
    """The file of one producer."""

    def write(self, call: Call) -> None:
        self.write_line(asdict(call))


def read_calls(path: Path) -> list[Call]:
    """Every call of a producer."""
    rows = read_lines(path)
    return [
        Call(**{**row, "ids": tuple(row["ids"]), "hidden": tuple(row["hidden"])}) for row in rows
    ]


@dataclass(frozen=True, slots=True)
class Window:
    """A strike as it came about."""

    kind: str
    begun: float
    ended: float
    affected: frozenset[int]
    """Producers that could not reach the primary."""


def gone_over(calls: Iterable[Call], window: Window) -> set[int]:
    """Producers whose tasks the fallback accepted during a strike."""
    return {
        call.producer
        for call in calls
        if call.status == "accepted"
        and call.broker == "fallback"
        and window.begun <= call.at + call.seconds <= window.ended
    }


def come_back(calls: Iterable[Call], window: Window, until: float) -> set[int]:
    """Producers whose tasks the primary accepted after a strike, before a moment."""
    return {
        call.producer
        for call in calls
        if call.status == "accepted"
        and call.broker == "primary"
        and window.ended <= call.at < until
    }


def blocked_again(calls: Iterable[Call], windows: Iterable[Window]) -> list[str]:
    """Producers that were blocked more than once by one strike."""
    ordered = sorted(windows, key=lambda window: window.begun)
    calls = [call for call in calls if call.seconds > BLOCKED_S]
    ends = [window.begun for window in ordered[1:]] + [float("inf")]
    told = []
    for window, end in zip(ordered, ends, strict=True):
        # What was under way when the strike came belongs to it.
        mine = [call for call in calls if window.begun <= call.at + call.seconds < end]
        for producer in sorted({call.producer for call in mine}):
            seconds = [f"{call.seconds:.2f}" for call in mine if call.producer == producer]
            if len(seconds) > 1:
                told.append(
                    f"producer {producer} was blocked {len(seconds)} times by {window.kind}: "
                    f"{', '.join(seconds)} s"
                )
    return told

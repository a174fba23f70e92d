"""What surveys of the broker show, what follows from several of them, and when to look again.

Pure: times are seconds of the reaper's monotonic clock, and come with the survey.

Why a message without a lease is not enough. A living worker that reaches the broker sets a lease
at most 35 s after it took a message (held for 15 s, looked at every 20 s) and renews it every 20 s
for 60 s. So whoever holds a message for 60 s, and has no lease at their end, has not reached a
broker that was there all the time. That it was there is only known from surveys close to each
other that were answered at once. And leases end by the broker's wall clock: when that is set, or
its host slept, all are over at once. After any of this all sightings start anew, which gives the
workers one full lease to renew theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to watch before something counts as lost, in seconds."""

    lease_s: float = 60.0
    """How long a holder is watched, and a lease lasts (`swarm.delivery.holder.LEASE_S`)."""
    gap_s: float = 15.0
    """Surveys further apart prove nothing about the time in between. Less than a renewal's 20 s:
    an outage that fits in costs a holder one renewal, and a lease bears two."""
    slow_s: float = 1.0
    """A reply that takes longer is no sign of a broker that works."""
    jump_s: float = 3.0
    """By how much the broker's clock may move more or less than the reaper's between two surveys.
    More than a reply takes, less than the 20 s that a lease has left if a renewal failed."""


@dataclass(frozen=True, slots=True)
class QueueSight:
    """One queue."""

    length: int
    due_in_s: float | None
    """Seconds until the next scheduled message is due; None without one."""
    rung: bool
    """Its bell is rung: nobody waits for it, or nobody has come yet."""


@dataclass(frozen=True, slots=True)
class Held:
    """One holder."""

    holder: str
    lease_left_s: float | None
    """None without a lease."""
    tags: tuple[str, ...]
    """What names the messages it holds."""


@dataclass(frozen=True, slots=True)
class Survey:
    """One look at the broker."""

    asked_at: float
    answered_at: float
    broker_s: float
    """Epoch seconds by the broker's clock."""
    queues: Mapping[str, QueueSight]
    holders: tuple[Held, ...]
    producers_requests: int = 0
    """What producers of a metered broker have said they asked of it, ever."""

    @property
    def tasks(self) -> int:
        """Those that wait or are held; without the scheduled ones."""
        waiting = sum(sight.length for sight in self.queues.values())
        return waiting + sum(len(held.tags) for held in self.holders)

    @property
    def unleased(self) -> frozenset[tuple[str, str]]:
        """(holder, tag) of everything held without a lease."""
        return frozenset(
            (held.holder, tag)
            for held in self.holders
            if held.lease_left_s is None
            for tag in held.tags
        )


def parse_survey(
    reply: Sequence[Any], queues: Sequence[str], *, asked_at: float, answered_at: float
) -> Survey:
    """Read what survey.lua returned.

    Raises:
        ValueError, TypeError, AttributeError: it is something else.
    """
    now_ms, producers_requests, *rest = reply
    split = 3 * len(queues)
    rows, holders = _threes(rest[:split]), _threes(rest[split:])
    return Survey(
        asked_at,
        answered_at,
        now_ms / 1000,
        {
            queue: QueueSight(
                int(length), None if due < 0 else max(0.0, (due - now_ms) / 1000), bool(rung)
            )
            for queue, (length, due, rung) in zip(queues, rows, strict=True)
        },
        tuple(
            Held(_text(holder), None if left < 0 else left / 1000, tuple(map(_text, tags)))
            for holder, left, tags in holders
        ),
        int(producers_requests),
    )


def _threes(items: Sequence[Any]) -> Iterator[tuple[Any, Any, Any]]:
    return zip(items[0::3], items[1::3], items[2::3], strict=True)


def _text(value: bytes | str) -> str:
    # What is no UTF-8 goes back to Redis as it came.
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class Sightings:
    """Since when each message is seen with its holder, without a break."""

    since: Mapping[tuple[str, str], float] = field(default_factory=dict)
    lease_left_s: Mapping[str, float] = field(default_factory=dict)
    """Of the last survey's holders, those with a lease."""
    suspects: frozenset[tuple[str, str]] = frozenset()
    """Held without a lease in the last two surveys."""
    unleased: frozenset[tuple[str, str]] = frozenset()
    asked_at: float | None = None
    broker_s: float = 0.0
    """Of the last survey."""

    def after(self, survey: Survey, patience: Patience) -> Sightings:
        """The sightings with this survey's."""
        known = {} if self._breaks(survey, patience) else self.since
        since = {
            (held.holder, tag): known.get((held.holder, tag), survey.asked_at)
            for held in survey.holders
            for tag in held.tags
        }
        leases = {h.holder: h.lease_left_s for h in survey.holders if h.lease_left_s is not None}
        unleased = survey.unleased
        suspects = unleased & self.unleased
        return Sightings(since, leases, suspects, unleased, survey.asked_at, survey.broker_s)

    def _breaks(self, survey: Survey, patience: Patience) -> bool:
        if self.asked_at is None:
            return True
        jump_s = (survey.broker_s - self.broker_s) - (survey.asked_at - self.asked_at)
        return (
            survey.answered_at - survey.asked_at > patience.slow_s
            or survey.answered_at - self.asked_at > patience.gap_s
            or abs(jump_s) > patience.jump_s
        )

    def lost(self, patience: Patience) -> dict[str, tuple[str, ...]]:
        """By holder, what is held for a lease's time by somebody who has none at its end."""
        lost: dict[str, tuple[str, ...]] = {}
        if self.asked_at is not None:
            for holder, tag in sorted(self.unleased):
                if self.asked_at - self.since[holder, tag] >= patience.lease_s:
                    lost[holder] = (*lost.get(holder, ()), tag)
        return lost

    def next_loss_s(self, patience: Patience) -> float | None:
        """Seconds after this survey in which the next message may be lost."""
        if self.asked_at is None:
            return None
        return min(
            (
                max(at + patience.lease_s - self.asked_at, self.lease_left_s.get(holder, 0.0))
                for (holder, _), at in self.since.items()
            ),
            default=None,
        )


@dataclass(frozen=True, slots=True)
class Attention:
    """What the hosts' answers call for."""

    close: bool = False
    """A host is away, an instance does not report or lost its broker: something may have
    vanished."""
    busy: bool = False
    """Instances run of which none waits for messages, so none looks at the schedule."""
    untended: frozenset[str] = frozenset()
    """Queues on which no instance waits."""
    deserted: frozenset[str] = frozenset()
    """Those of them whose pool has nothing that runs: only their bells tell of a message."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """Seconds between two surveys."""

    idle_s: float = 300.0
    busy_s: float = 30.0
    close_s: float = 10.0
    least_s: float = 2.0
    """However much is due."""
    given_up_s: float = 30.0
    given_up_after_s: float = 300.0
    """A broker that has been away for so long is looked at more rarely: each attempt may count
    where requests are paid for."""

    def stretched(self, factor: float) -> Rhythm:
        """With longer pauses while nothing is wrong, up to four times the usual."""
        factor = min(4.0, max(1.0, factor))
        return replace(self, idle_s=self.idle_s * factor, busy_s=self.busy_s * factor)


def pause_s(
    survey: Survey, sightings: Sightings, attention: Attention, rhythm: Rhythm, patience: Patience
) -> float:
    """Seconds from this survey to the next."""
    pause = rhythm.idle_s
    if attention.busy or sightings.unleased:
        pause = min(pause, rhythm.busy_s)
    if attention.close or sightings.suspects:
        pause = min(pause, rhythm.close_s)
        loss_s = sightings.next_loss_s(patience)
        if loss_s is not None:
            pause = min(pause, loss_s)
    for queue in attention.untended:
        sight = survey.queues.get(queue)
        if sight is not None and sight.due_in_s is not None:
            pause = min(pause, sight.due_in_s)
    return max(pause, rhythm.least_s)

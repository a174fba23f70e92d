"""Whether a run with two brokers was good, and what people and programs are told of it. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from celery.states import READY_STATES

from chaos.two_brokers.calls import (
    BLOCKED_S,
    PATIENCE_S,
    Call,
    Window,
    blocked_again,
    come_back,
    gone_over,
)
from chaos.two_brokers.handles import Answer
from chaos.two_brokers.judgement import TwoVerdict
from chaos.two_brokers.schedule import Strike
from swarm.brokers import BrokerName

#: Of the tasks that arrive in a run's time, the share that must have been accepted.
ACCEPTED_SHARE = 0.95
#: Tasks and the like that are named one by one.
_NAMED = 20


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that a run has left behind."""

    seconds: float
    """From the first job to the last."""
    tasks_a_minute: float
    calls: Sequence[Call]
    windows: Sequence[Window]
    verdict: TwoVerdict
    early: Sequence[Answer]
    """Handles of the fallback's tasks, asked for while the primary was away."""
    late: Sequence[Answer]
    """Handles of a sample of all tasks, asked for at the end."""
    unanswered: Sequence[str]
    """Handles that were asked for, and of which nothing came at all."""
    left: Mapping[BrokerName, Mapping[str, int]]
    """By broker, what is not done."""
    spooled: Sequence[str]
    """Ends of tasks that lie on hosts still."""
    failed_units: Sequence[str]


def find_problems(
    strikes: Iterable[Strike], struck: Mapping[str, int], record: RunRecord
) -> list[str]:
    """What a good run does not have."""
    verdict = record.verdict.verdict
    strikes = list(strikes)
    planned = {blow.name for strike in strikes for blow in strike.blows}
    planned |= {strike.kind for strike in strikes}
    expected = int(ACCEPTED_SHARE * record.tasks_a_minute * record.seconds / 60)
    problems = [
        *(f"no {name} struck" for name in sorted(planned - set(struck))),
        *(f"lost: {task_id}" for task_id in verdict.lost[:_NAMED]),
        *(f"committed twice: {task_id}" for task_id in verdict.committed_twice[:_NAMED]),
        *(f"not on the broker of its id: {each}" for each in record.verdict.elsewhere[:_NAMED]),
    ]
    if verdict.accepted < expected:
        problems.append(f"{verdict.accepted} tasks accepted, expected {expected} or more")
    problems += [
        f"producer {call.producer} was blocked for {call.seconds:.2f} s by its job {call.job}, "
        f"expected {PATIENCE_S:g} s at most"
        for call in record.calls
        if call.seconds > PATIENCE_S
    ]
    problems += blocked_again(record.calls, record.windows)
    problems += [problem for each in record.windows for problem in _ways(record, each)]
    problems += _handles(record)
    problems += [f"left in the {broker}: {dict(left)}" for broker, left in record.left.items()]
    problems += [f"not sent: {path}" for path in record.spooled[:_NAMED]]
    problems += [f"failed: {unit}" for unit in record.failed_units]
    return problems


def _ways(record: RunRecord, window: Window) -> list[str]:
    """Who did not go over to the fallback, or did not come back."""
    later = [each.begun for each in record.windows if each.begun > window.begun]
    went = gone_over(record.calls, window)
    back = come_back(record.calls, window, min(later, default=float("inf")))
    return [
        *(f"{window.kind}: producer {n} did not go over" for n in sorted(window.affected - went)),
        *(f"{window.kind}: producer {n} did not come back" for n in sorted(window.affected - back)),
    ]


def _handles(record: RunRecord) -> list[str]:
    problems = [
        f"handle {each.id}: {each.error or each.state or 'no result'} after {each.seconds:.1f} s"
        for each in failed_handles(record)[:_NAMED]
    ]
    problems += [f"handle {task_id}: no word" for task_id in record.unanswered[:_NAMED]]
    if not record.late:
        problems.append("no handle was asked for at the end")
    problems += [
        f"{window.kind}: no result of the fallback came meanwhile"
        for window in record.windows
        if not answered_in(record.early, window)
    ]
    return problems


def answered_in(answers: Iterable[Answer], window: Window) -> int:
    """Results that came while the primary was away."""
    return sum(
        window.begun < each.at <= window.ended and each.state in READY_STATES for each in answers
    )


def failed_handles(record: RunRecord) -> list[Answer]:
    """Handles without a result."""
    return [each for each in (*record.early, *record.late) if each.state not in READY_STATES]


def returns(record: RunRecord) -> int:
    """Strikes after which all went back by themselves."""
    return sum(not _ways(record, window) for window in record.windows)


def summarise(seed: int, struck: Mapping[str, int], record: RunRecord) -> dict[str, object]:
    """The last line."""
    verdict = record.verdict.verdict
    seconds = [call.seconds for call in record.calls]
    return {
        "brokers": 2,
        "accepted": verdict.accepted,
        "committed": verdict.committed,
        "lost": len(verdict.lost),
        "committed_twice": len(verdict.committed_twice),
        "uncertain": record.verdict.uncertain,
        "done_on_both": record.verdict.done_on_both,
        "blocked_max_s": round(max(seconds, default=0.0), 2),
        "blocked_over_1s": sum(each > BLOCKED_S for each in seconds),
        "handles_checked": len(record.early) + len(record.late),
        "handles_failed": len(failed_handles(record)) + len(record.unanswered),
        "strikes": dict(sorted(struck.items())),
        "returns": returns(record),
        "seed": seed,
    }


def describe(record: RunRecord) -> list[str]:
    """What the last line has no room for."""
    verdict = record.verdict.verdict
    statuses = Counter(call.status for call in record.calls)
    lines = [
        f"{len(record.calls)} calls: " + ", ".join(f"{n} {s}" for s, n in statuses.most_common()),
        f"{verdict.retaken} tasks were taken more than once",
        f"{verdict.failed} ended with a failure, {verdict.void} were not due behind one of these",
    ]
    for window in record.windows:
        blocked = sorted(
            (call.seconds for call in record.calls if _within(call, window)), reverse=True
        )
        after_s = [
            min(call.at for call in record.calls if _is_back(call, producer, window)) - window.ended
            for producer in sorted(window.affected & come_back(record.calls, window, float("inf")))
        ]
        lines.append(
            f"{window.kind}, {window.ended - window.begun:.0f} s: longest calls "
            f"{', '.join(f'{each:.2f}' for each in blocked[:4])} s; back after "
            f"{', '.join(f'{each:.0f}' for each in after_s)} s; "
            f"{answered_in(record.early, window)} results of the fallback meanwhile"
        )
    return lines


def _within(call: Call, window: Window) -> bool:
    return window.begun <= call.at + call.seconds <= window.ended


def _is_back(call: Call, producer: int, window: Window) -> bool:
    return (
        call.producer == producer
        and call.status == "accepted"
        and call.broker == "primary"
        and call.at >= window.ended
    )

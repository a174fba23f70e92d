"""What became of each task, by the append-only files of both brokers. Pure.

Of a task whose publication broke off a second broker has a copy: under an id that differs in one
digit, or under the same one where the id was made before. Either may end, once. Everything else
ends once on one of the two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from chaos.submissions import resolve_statuses
from chaos.two_brokers.calls import Call
from chaos.witness import Evidence, Verdict, judge
from swarm.brokers import BrokerName
from swarm.delivery import ids


@dataclass(frozen=True, slots=True)
class TwoVerdict:
    """As with one broker, and what two of them add."""

    verdict: Verdict
    uncertain: int
    """Tasks whose publication broke off on a broker."""
    done_on_both: int
    """Of these, those that ended on both."""
    elsewhere: tuple[str, ...]
    """Tasks that ended on another broker only than the one which their id names."""
    due: tuple[str, ...]
    """Accepted tasks that must have a result, in the order in which they were accepted."""


def judge_both(calls: Iterable[Call], evidence: Mapping[BrokerName, Evidence]) -> TwoVerdict:
    """Hold what was accepted against what was committed."""
    calls = sorted(calls, key=lambda call: call.at)
    last = {call.job: call for call in calls}
    statuses = resolve_statuses(call.entry for call in calls)
    merged = merge(evidence.values())
    verdict = judge(statuses, merged)
    excused = {
        one_name(task_id)
        for call in calls
        if call.uncertain or call.status == "unknown"
        for task_id in (*call.ids, *call.hidden)
    }
    ends = ends_by_task(evidence)
    both = {name for name, places in ends.items() if len({broker for broker, _ in places}) > 1}
    twice = {
        task_id
        for name, places in ends.items()
        for (broker, task_id), count in places.items()
        # Once on each broker at most, whatever its id is.
        if count > 1
        or len(places) > len({each for each, _ in places})
        or (name in both and name not in excused)
    }
    uncertain_tasks = {
        one_name(task_id) for call in calls if call.uncertain for task_id in call.ids
    }
    accepted = [last[entry.job] for entry in statuses.accepted]
    return TwoVerdict(
        replace(verdict, committed_twice=tuple(sorted(twice))),
        uncertain=len(uncertain_tasks),
        done_on_both=len(both & excused),
        elsewhere=tuple(_elsewhere(accepted, evidence)),
        due=tuple(task_id for call in accepted for task_id in _due(call, merged)),
    )


def merge(evidence: Iterable[Evidence]) -> Evidence:
    """All that the files say, as if they were one."""
    merged = Evidence()
    for each in evidence:
        merged.commits += each.commits
        merged.burials += each.burials
        merged.takes += each.takes
        for task_id, states in each.finals.items():
            merged.finals.setdefault(task_id, []).extend(states)
    return merged


def ends_by_task(
    evidence: Mapping[BrokerName, Evidence],
) -> dict[str, dict[tuple[BrokerName, str], int]]:
    """By the name that a task's ids share: how often each ended on which broker."""
    ends: defaultdict[str, dict[tuple[BrokerName, str], int]] = defaultdict(dict)
    for broker, each in evidence.items():
        for task_id in {*each.commits, *each.finals}:
            count = max(each.commits[task_id], len(each.finals.get(task_id, ())))
            ends[one_name(task_id)][broker, task_id] = count
    return ends


def one_name(task_id: str) -> str:
    """The same for a task and for its copy on the other broker."""
    return ids.named(task_id, "primary")


def _elsewhere(calls: Iterable[Call], evidence: Mapping[BrokerName, Evidence]) -> list[str]:
    found = []
    for call in calls:
        for task_id in call.ids if call.broker else ():
            named = ids.broker_of(task_id)
            other: BrokerName = "fallback" if named == "primary" else "primary"
            if evidence[other].ended(task_id) and not evidence[named].ended(task_id):
                found.append(task_id)
    return found


def _due(call: Call, merged: Evidence) -> list[str]:
    """Behind a failure a chain does not go on."""
    due = []
    for task_id in call.ids:
        due.append(task_id)
        if call.kind == "chain" and not merged.succeeded(task_id):
            break
    return due

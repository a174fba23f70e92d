"""What many scale-downs did to the tasks: the broker's accounts, the journals, the decisions. Pure.

A message that a worker has taken is its own until it ends the task. One that is taken again was
interrupted: it began on an instance, or could have, and did not end there.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from bench.lab_journal import Journal, TaskRun, UnitEvent
from chaos.submissions import Entry, FinalStatuses
from chaos.witness import Evidence, Verdict, examine, judge, read_commands

_HELD = b"swarm:held:"
_ID = re.compile(rb'"id":\s*"([^"]+)"')
_TAG = re.compile(rb'"delivery_tag":\s*"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Accounts:
    """Of the broker's append-only file."""

    evidence: Evidence
    taken: frozenset[str]
    taken_again: frozenset[str]
    """Tasks of which one and the same message was taken more than once. A task that Celery retries
    is a new message each time."""

    @classmethod
    def read(cls, data: bytes) -> Self:
        """Raises `ValueError` when it is no such file."""
        takes: Counter[bytes] = Counter()
        tasks: dict[bytes, str] = {}
        for words in read_commands(data):
            if len(words) < 3 or words[0].upper() != b"RPUSH" or not words[1].startswith(_HELD):
                continue
            tag, task_id = _TAG.search(words[2]), _ID.search(words[2])
            if tag is not None and task_id is not None:
                takes[tag[1]] += 1
                tasks[tag[1]] = task_id[1].decode()
        again = frozenset(tasks[tag] for tag, count in takes.items() if count > 1)
        return cls(examine(read_commands(data)), frozenset(tasks.values()), again)


@dataclass(frozen=True, slots=True)
class ScaleDowns:
    """What came out."""

    scale_downs: int
    """Instances that systemd was told to stop."""
    decided: int
    """Stops of the scaler's own account, which did not fail."""
    starts: int
    under_load: int
    """Scale-downs in the moment of which a task ran on some other instance."""
    met_a_task: tuple[str, ...]
    """Tasks that ran on the instance as its stop began."""
    failed_units: tuple[str, ...]
    interrupted: tuple[str, ...]
    untold: tuple[str, ...]
    """Accepted tasks of which the accounts have no take, or the journals no end. With many of them
    the rest would prove little."""
    verdict: Verdict
    refused: int
    left: Mapping[str, int]
    seconds: float

    def problems(self, wanted: int) -> list[str]:
        """What a good run does not have; of tasks the first ones."""
        verdict = self.verdict
        found = [
            *(f"interrupted: {each}" for each in self.interrupted[:20]),
            *(f"lost: {each}" for each in verdict.lost[:20]),
            *(f"committed twice: {each}" for each in verdict.committed_twice[:20]),
            *(f"ran on an instance as it was stopped: {each}" for each in self.met_a_task[:20]),
            *(f"ended badly: {each}" for each in self.failed_units[:20]),
        ]
        if self.untold:
            found.append(f"accounts or journals do not tell of {len(self.untold)} tasks")
        if self.scale_downs < wanted:
            found.append(f"{self.scale_downs} scale-downs, expected {wanted} or more")
        if self.decided < self.scale_downs:
            found.append(f"the scaler decided on {self.decided} of {self.scale_downs} stops only")
        for count, what in ((verdict.failed, "failed"), (self.refused, "were not accepted")):
            if count:
                found.append(f"{count} tasks {what}")
        if self.left:
            found.append(f"left in Redis: {dict(self.left)}")
        return found

    def summary(self) -> dict[str, float]:
        """The last line."""
        return {
            "scale_downs": self.scale_downs,
            "scale_downs_under_load": self.under_load,
            "starts": self.starts,
            "accepted": self.verdict.accepted,
            "committed": self.verdict.committed,
            "interrupted": len(self.interrupted),
            "met_a_task": len(self.met_a_task),
            "lost": len(self.verdict.lost),
            "committed_twice": len(self.verdict.committed_twice),
            "failed_tasks": self.verdict.failed,
            "failed_units": len(self.failed_units),
            "seconds": round(self.seconds),
        }


def judge_scale_downs(
    journal: Journal,
    accounts: Accounts,
    accepted: Sequence[str],
    *,
    refused: int,
    decided: int,
    left: Mapping[str, int],
    seconds: float,
) -> ScaleDowns:
    """Hold tasks and stops against the accounts."""
    told = accounts.taken & {run.task_id for run in journal.runs}
    statuses = FinalStatuses((Entry(0, "accepted", "load", tuple(accepted)),), ())
    bodies = Counter(run.task_id for run in journal.runs if run.outcome != "retry")
    ran_twice = {task_id for task_id, count in bodies.items() if count > 1}
    return ScaleDowns(
        scale_downs=len(journal.stops),
        decided=decided,
        starts=len(journal.starts),
        under_load=_under_load(journal.stops, journal.runs),
        met_a_task=tuple(_met(journal.stops, journal.runs)),
        failed_units=tuple(f"{e.unit} on {e.host}: {e.result}" for e in journal.failures),
        interrupted=tuple(sorted(accounts.taken_again | ran_twice)),
        untold=tuple(each for each in accepted if each not in told),
        verdict=judge(statuses, accounts.evidence),
        refused=refused,
        left=left,
        seconds=seconds,
    )


def decided_stops(lines: Iterable[str], since: float) -> int:
    """Stops in lines of decisions.jsonl since a moment, without those that failed."""
    return sum(
        "stop" in action and "error" not in action
        for line in lines
        if (turn := json.loads(line))["at"] >= since
        for action in turn["actions"]
    )


def _met(stops: Iterable[UnitEvent], runs: Iterable[TaskRun]) -> Iterable[str]:
    stopped_at = {stop.invocation: stop.at for stop in stops}
    for run in runs:
        at = stopped_at.get(run.invocation)
        if at is not None and run.ended_at > at:
            yield run.task_id


def _under_load(stops: Iterable[UnitEvent], runs: Sequence[TaskRun]) -> int:
    """How many of them came while a task ran."""
    begins, ends = sorted(run.begun_at for run in runs), sorted(run.ended_at for run in runs)
    return sum(bisect_right(begins, stop.at) > bisect_right(ends, stop.at) for stop in stops)

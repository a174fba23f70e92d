"""Whether a run was good, and what people and programs are told of it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos.play import Story
from chaos.schedule import Plan, Schedule
from chaos.submissions import FinalStatuses
from chaos.waits import P95_S, Bound, Sample, p95
from chaos.witness import Evidence, Verdict, judge


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that a run has left behind."""

    statuses: FinalStatuses
    evidence: Evidence
    samples: Sequence[Sample]
    never_back: int
    """Messages of victims that still are their victims'."""
    replayed: int
    left: dict[str, int]


def conclude(plan: Plan, schedule: Schedule, story: Story, record: RunRecord) -> int:
    """Tell what came out; the exit status says whether it is good."""
    verdict = judge(record.statuses, record.evidence)
    tell(verdict, record, story)
    problems = [*story.errors, *find_problems(plan, schedule, story.struck, verdict, record)]
    for problem in problems:
        print(f"chaos: {problem}", flush=True)
    print(json.dumps(summarise(schedule, story.struck, verdict, record)))
    return 1 if problems else 0


def find_problems(
    plan: Plan, schedule: Schedule, struck: Mapping[str, int], verdict: Verdict, record: RunRecord
) -> list[str]:
    """What a good run does not have; of lost tasks and second commits the first ones."""
    planned = {strike.fault for strike in schedule.strikes}
    problems = [
        *(f"no {fault} struck" for fault in sorted(planned - set(struck))),
        *(f"lost: {task_id}" for task_id in verdict.lost[:20]),
        *(f"committed twice: {task_id}" for task_id in verdict.committed_twice[:20]),
    ]
    if verdict.accepted < plan.tasks:
        problems.append(f"{verdict.accepted} tasks accepted, expected {plan.tasks} or more")
    if record.left:
        problems.append(f"left in Redis: {record.left}")
    if record.never_back:
        problems.append(f"{record.never_back} messages of victims never came back")
    return problems + find_late(record.samples, host_killed="kill_host" in planned)


def summarise(
    schedule: Schedule, struck: Mapping[str, int], verdict: Verdict, record: RunRecord
) -> dict[str, object]:
    """The last line."""
    return {
        "accepted": verdict.accepted,
        "committed": verdict.committed,
        "lost": len(verdict.lost),
        "committed_twice": len(verdict.committed_twice),
        "recovery_process_p95_s": rounded(p95_of(record.samples, "process")),
        "recovery_host_p95_s": rounded(p95_of(record.samples, "host")),
        "faults": dict(sorted(struck.items())),
        "seed": schedule.seed,
    }


def find_late(samples: Sequence[Sample], *, host_killed: bool) -> list[str]:
    """Which of the promised times were not kept; to have measured none keeps no promise either."""
    due: dict[Bound, str] = {"process": "recovery from a process's death"}
    if host_killed:
        due["host"] = "recovery from a host's death"
    if p95_of(samples, "reaper") is not None:
        due["reaper"] = "recovery by the next start or the reaper"
    problems = []
    for bound, what in due.items():
        seconds = p95_of(samples, bound)
        if seconds is None or seconds > P95_S[bound]:
            got = "nothing measured" if seconds is None else f"{seconds:.2f} s"
            problems.append(f"{what}: expected p95 <= {P95_S[bound]:g} s, got {got}")
    return problems


def p95_of(samples: Sequence[Sample], bound: Bound) -> float | None:
    """Of those who have to keep this bound."""
    return p95(each.seconds for each in samples if each.bound == bound)


def rounded(seconds: float | None) -> float | None:
    """As the last line has it."""
    return None if seconds is None else round(seconds, 2)


def tell(verdict: Verdict, record: RunRecord, story: Story) -> None:
    """What the last line has no room for."""
    takes = record.evidence.takes
    print(
        f"\n{takes.total()} times a worker took a task, {verdict.retaken} tasks were taken more "
        f"than once; {verdict.failed} ended with a failure, {verdict.void} were not due as one "
        f"before them in a chain had failed\n"
        f"{verdict.unknown} tasks of which their producer does not know whether they were "
        f"accepted: {verdict.unknown_committed} of them are committed, each once\n"
        f"{verdict.burials} dead letters, {record.replayed} replayed"
    )
    for line in describe(record.samples):
        print(line)
    print(f"in {time.monotonic() - story.begun:.0f} s\n", flush=True)


def describe(samples: Sequence[Sample]) -> list[str]:
    """Every sample, by who had to give it back within what time."""
    names: dict[Bound, str] = {
        "process": "a process died, Redis was there",
        "host": "a host died",
        "reaper": "left to the next start or the reaper (struck as Redis was away, or frozen)",
    }
    lines = []
    for bound, name in names.items():
        mine = [each for each in samples if each.bound == bound]
        if mine:
            lines.append(
                f"{name}: {len(mine)} back, p95 {p95_of(mine, bound):.2f} s of {P95_S[bound]:g} s"
            )
        for fault in sorted({each.fault for each in mine}):
            waits = ", ".join(
                f"{each.seconds:.2f}" + (f" (+{each.away_s:.2f} away)" if each.away_s else "")
                for each in mine
                if each.fault == fault
            )
            lines.append(f"  {fault}: {waits} s")
    return lines

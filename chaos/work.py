"""What is submitted: a seed in, jobs of every kind out. Pure.

A job is what one producer sends at once: one task, a chain, or a chord. Its ids are known before
it is sent, so that one whose producer died in between can be looked for.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from lab.hosts import PAGES_URL

JobKind = Literal["page", "slow", "flaky", "analysis", "keyed", "countdown", "chain", "chord"]

#: How many of a hundred jobs are of each kind.
_SHARES: dict[JobKind, int] = {
    "page": 28,
    "slow": 12,
    "flaky": 1,
    "analysis": 38,
    "keyed": 8,
    "countdown": 6,
    "chain": 4,
    "chord": 3,
}
CHORD_PARTS = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One task."""

    id: str
    task: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Job:
    """Tasks that are sent together. Of a chain each, of a chord the last waits for the others."""

    number: int
    kind: JobKind
    steps: tuple[Step, ...]
    countdown_s: float = 0.0

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(step.id for step in self.steps)


def make_jobs(seed: int, tasks: int, run: str) -> list[Job]:
    """Jobs that have at least so many tasks; `run` makes their ids new, and nothing else."""
    chance = random.Random(f"work {seed}")  # noqa: S311 - to be repeatable, not secret
    ids = random.Random(f"ids {seed} {run}")  # noqa: S311
    jobs: list[Job] = []
    count = 0
    for job in _jobs(chance, ids):
        jobs.append(job)
        count += len(job.steps)
        if count >= tasks:
            break
    return jobs


def _jobs(chance: random.Random, ids: random.Random) -> Iterator[Job]:
    kinds = list(_SHARES)
    weights = list(_SHARES.values())
    number = 0
    while True:
        kind = chance.choices(kinds, weights)[0]
        countdown_s = float(chance.randint(1, 25)) if kind == "countdown" else 0.0
        tasks = list(_tasks(kind, number, chance))
        steps = tuple(Step(_new_id(ids), task, payload) for task, payload in tasks)
        yield Job(number, kind, steps, countdown_s)
        number += 1


_Task = tuple[str, dict[str, Any]]


def _tasks(kind: JobKind, number: int, chance: random.Random) -> Iterator[_Task]:
    if kind == "page":
        yield _browse(f"/page/{2 * chance.randint(1, 20)}?job={number}")
    elif kind == "slow":
        yield _browse(f"/slow?ms={chance.randint(1000, 4000)}&job={number}")
    elif kind == "flaky":
        # Answered with 503: tried four times, and then it has failed.
        yield _browse(f"/status/503?job={number}")
    elif kind == "chain":
        yield _browse(f"/page/{2 * chance.randint(1, 20)}?job={number}")
        yield _analyse(chance, number)
        yield _analyse(chance, number)
    elif kind == "chord":
        for _ in range(CHORD_PARTS + 1):
            yield _analyse(chance, number)
    else:
        yield _analyse(chance, number)


def _browse(path: str) -> _Task:
    return "browser.run", {"url": f"{PAGES_URL}{path}", "actions": [{"kind": "text"}]}


def _analyse(chance: random.Random, number: int) -> _Task:
    words = " ".join(chance.choices(("harbour", "lantern", "orchard", "granite"), k=40))
    html = f"<html><title>Job {number}</title><body><h1>Job {number}</h1><p>{words}.</p></body>"
    return "analysis.run", {"html": html}


def _new_id(ids: random.Random) -> str:
    return str(UUID(int=ids.getrandbits(128), version=4))

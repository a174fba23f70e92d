"""What was committed, from Redis' append-only file: every change in its order. Pure.

The file is written by Redis, not by the code under test, and nothing that a fault does makes it
forget: so it can tell whether something was committed twice, where the keys themselves only tell
of the last time. It is whole if it was not rewritten since the run began.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from chaos.submissions import Entry, FinalStatuses

_DONE = b"swarm:done:"
_RESULT = b"celery-task-meta-"
_HELD = b"swarm:held:"
_ID = re.compile(rb'"id":\s*"([^"]+)"')
_STATUS = re.compile(rb'"status":\s*"(\w+)"')
_FINAL = frozenset({b"SUCCESS", b"FAILURE", b"REVOKED"})


@dataclass(slots=True)
class Evidence:
    """By task id, what the file says of it."""

    commits: Counter[str] = field(default_factory=Counter)
    """Completed marks that were set."""
    finals: dict[str, list[str]] = field(default_factory=dict)
    """States of results that are the last word on a task."""
    burials: Counter[str] = field(default_factory=Counter)
    """How often it became a dead letter."""
    takes: Counter[str] = field(default_factory=Counter)
    """How often a worker took it: each may have run the body, once."""

    def ended(self, task_id: str) -> bool:
        """With a result: an end that nobody can read is none."""
        return task_id in self.commits and task_id in self.finals

    def succeeded(self, task_id: str) -> bool:
        return "SUCCESS" in self.finals.get(task_id, ())


def read_commands(data: bytes) -> Iterator[list[bytes]]:
    """The commands of an append-only file; a last one that was cut off is none.

    Raises:
        ValueError: it is no such file.
    """
    at = 0
    while at < len(data):
        end = data.find(b"\r\n", at)
        if end < 0:
            return
        begin, line = at, data[at:end]
        at = end + 2
        if line.startswith(b"#"):  # a timestamp
            continue
        if not line.startswith(b"*"):
            raise ValueError(f"expected a command at byte {begin}, got {line[:40]!r}")
        words: list[bytes] = []
        for _ in range(int(line[1:])):
            end = data.find(b"\r\n", at)
            if end < 0:
                return
            size = int(data[at + 1 : end])
            at = end + 2
            if at + size + 2 > len(data):
                return
            words.append(data[at : at + size])
            at += size + 2
        yield words


def examine(commands: Iterable[list[bytes]]) -> Evidence:
    """What the commands did to tasks."""
    evidence = Evidence()
    for words in commands:
        if len(words) < 3:
            continue
        name, key = words[0].upper(), words[1]
        if name == b"SET" and key.startswith(_DONE):
            evidence.commits[key[len(_DONE) :].decode()] += 1
        elif name in {b"SET", b"SETEX"} and key.startswith(_RESULT):
            value = words[3] if name == b"SETEX" else words[2]
            _note_result(evidence, key[len(_RESULT) :].decode(), value)
        elif name == b"RPUSH" and key.startswith(_HELD) and (found := _ID.search(words[2])):
            evidence.takes[found[1].decode()] += 1
    return evidence


def _note_result(evidence: Evidence, task_id: str, value: bytes) -> None:
    status = _STATUS.search(value)
    if status is None or status[1] not in _FINAL:
        return
    if b"DeadLetteredError" in value:
        evidence.burials[task_id] += 1
    else:
        evidence.finals.setdefault(task_id, []).append(status[1].decode())


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of what was accepted."""

    accepted: int
    committed: int
    lost: tuple[str, ...]
    committed_twice: tuple[str, ...]
    void: int
    """Successors of a task that failed: never to be done, and not counted as accepted."""
    failed: int
    """Committed with a failure."""
    unknown: int
    """Tasks of which their producer does not know whether they were accepted."""
    unknown_committed: int
    retaken: int
    """Tasks that more than one worker took."""
    burials: int


def judge(statuses: FinalStatuses, evidence: Evidence) -> Verdict:
    """Hold what was accepted against what was committed."""
    expected = [task_id for entry in statuses.accepted for task_id in _due(entry, evidence)]
    maybe = [task_id for entry in statuses.unknown for task_id in entry.ids]
    # Whatever the producer believes, nothing may be committed twice: complete_chord neither.
    twice = {task_id for task_id, count in evidence.commits.items() if count > 1}
    twice |= {task_id for task_id, states in evidence.finals.items() if len(states) > 1}
    lost = [task_id for task_id in expected if not evidence.ended(task_id)]
    return Verdict(
        accepted=len(expected),
        committed=len(expected) - len(lost),
        lost=tuple(lost),
        committed_twice=tuple(sorted(twice)),
        void=len(statuses.accepted_ids) - len(expected),
        failed=sum(
            evidence.ended(task_id) and not evidence.succeeded(task_id) for task_id in expected
        ),
        unknown=len(maybe),
        unknown_committed=sum(map(evidence.ended, maybe)),
        retaken=sum(count > 1 for count in evidence.takes.values()),
        burials=evidence.burials.total(),
    )


def _due(entry: Entry, evidence: Evidence) -> Iterator[str]:
    """The tasks of an accepted job that must end: behind a failure a chain does not go on."""
    for task_id in entry.ids:
        yield task_id
        if entry.kind == "chain" and evidence.ended(task_id) and not evidence.succeeded(task_id):
            return

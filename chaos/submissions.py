"""What producers and faults say of what they sent, in files that outlive them.

A line before a job is sent and a line after, each written at once: whatever ends the sender in
between leaves a job of which nobody knows, and which may be done once or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

SubmissionStatus = Literal["sending", "accepted", "refused", "unknown"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    job: int
    status: SubmissionStatus
    kind: str
    ids: tuple[str, ...]


class LineLog:
    """A file of JSON, a line each."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write_line(self, document: object) -> None:
        # One call: a killed writer leaves the whole line or none.
        os.write(self._file, (json.dumps(document) + "\n").encode())

    def close(self) -> None:
        os.close(self._file)


class SubmissionLog(LineLog):
    """The file of one who submits."""

    def write(self, entry: Entry) -> None:
        self.write_line([entry.job, entry.status, entry.kind, entry.ids])


def read_lines(path: Path) -> list[Any]:
    """Every line of a `LineLog`."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_submissions(path: Path) -> list[Entry]:
    """Every line."""
    rows = read_lines(path)
    return [Entry(job, status, kind, tuple(ids)) for job, status, kind, ids in rows]


@dataclass(frozen=True, slots=True)
class FinalStatuses:
    """What is known of each job after all lines: the last one counts."""

    accepted: tuple[Entry, ...]
    unknown: tuple[Entry, ...]
    """Its sender died, or the broker broke off."""

    @property
    def accepted_ids(self) -> tuple[str, ...]:
        return tuple(task_id for entry in self.accepted for task_id in entry.ids)


def resolve_statuses(entries: Iterable[Entry]) -> FinalStatuses:
    """The last line on each job."""
    last: dict[int, Entry] = {}
    for entry in entries:
        last[entry.job] = entry
    return FinalStatuses(
        tuple(entry for entry in last.values() if entry.status == "accepted"),
        tuple(entry for entry in last.values() if entry.status in {"sending", "unknown"}),
    )

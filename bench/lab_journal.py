"""What the lab's hosts have in their journals about instances and tasks.

systemd tells when it begins to start and to stop a unit, and how the unit ended. A worker tells of
each task when it has ended, with the seconds that its body took. All hosts of the lab share this
machine's clock, so their moments can be held against those of a producer here.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.deployed_lab import WORKERS, DeployedLab
from lab.commands import run

#: systemd's own names of its messages (sd-messages.h, `journalctl --catalog`).
_STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
_STOPPING = "de5b426a63be47a7b6ac3eaac82e2f6f"
_FAILED = "d9b373ed55a64feb8242e02dbe79a49c"
_INSTANCE = re.compile(r"celery-([a-z0-9-]+)@(\d+)\.service")
#: `browser.run[<id>] success`, as `swarm.worker.task_watch` says it.
_TASK_END = re.compile(r"([\w.]+)\[([^\]]+)\] (\w+)\b")
_FIELDS = (
    "MESSAGE",
    "MESSAGE_ID",
    "UNIT",
    "UNIT_RESULT",
    "INVOCATION_ID",
    "SWARM_POOL",
    "SWARM_SECONDS",
    "SWARM_TASK_ID",
    "_SOURCE_REALTIME_TIMESTAMP",
    "_SYSTEMD_INVOCATION_ID",
)
#: Seconds that a journal of hours may take to be read and sent.
_READ_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class UnitEvent:
    """Something that systemd did with an instance, or saw of it; `at` is Unix time."""

    at: float
    host: str
    unit: str
    invocation: str
    """One life of the unit, from its start to its end."""
    result: str = ""
    """Of a failure: `exit-code`, `timeout`, `signal`."""

    @property
    def pool(self) -> str:
        found = _INSTANCE.fullmatch(self.unit)
        return found[1] if found else ""


@dataclass(frozen=True, slots=True)
class TaskRun:
    """A body that was run to its end; moments are Unix time."""

    task_id: str
    host: str
    invocation: str
    """Of the instance that ran it."""
    begun_at: float
    ended_at: float
    outcome: str


@dataclass(frozen=True, slots=True)
class Journal:
    """In the order of each host's journal."""

    starts: list[UnitEvent] = field(default_factory=list)
    stops: list[UnitEvent] = field(default_factory=list)
    """Each when systemd begins with it."""
    failures: list[UnitEvent] = field(default_factory=list)
    """Ends that systemd does not call a success."""
    runs: list[TaskRun] = field(default_factory=list)


def read_journal(lab: DeployedLab, since: float, *, pools: Iterable[str]) -> Journal:
    """All of the worker hosts since a moment, for these pools.

    Raises:
        LabError: a host does not answer.
    """
    ids = (f"MESSAGE_ID={each}" for each in (_STARTING, _STOPPING, _FAILED))
    matches = " + ".join([*ids, *(f"SWARM_POOL={pool}" for pool in pools)])
    command = (
        f"journalctl -q --no-pager -o json --output-fields={','.join(_FIELDS)} "
        f"--since {shlex.quote(f'@{since:.6f}')} {matches}"
    )
    journal = Journal()
    for host in WORKERS:
        ssh = ["ssh", "-F", str(lab.state.ssh_config), host, command]
        add_entries(journal, host, run(ssh, timeout_s=_READ_TIMEOUT_S).splitlines())
    return journal


def add_entries(journal: Journal, host: str, lines: Iterable[str]) -> None:
    """Sort the lines of `journalctl -o json` into the journal; all others are passed over."""
    for line in lines:
        entry: Mapping[str, Any] = json.loads(line)
        unit = str(entry.get("UNIT", ""))
        kinds = {
            _STARTING: journal.starts,
            _STOPPING: journal.stops,
            _FAILED: journal.failures,
        }
        into = kinds.get(str(entry.get("MESSAGE_ID")))
        if into is not None:
            if _INSTANCE.fullmatch(unit):
                invocation = str(entry.get("INVOCATION_ID", ""))
                result = str(entry.get("UNIT_RESULT", ""))
                into.append(UnitEvent(_at(entry), host, unit, invocation, result))
        elif "SWARM_SECONDS" in entry and (found := _TASK_END.match(str(entry.get("MESSAGE")))):
            ended_at = _at(entry)
            invocation = str(entry.get("_SYSTEMD_INVOCATION_ID", ""))
            begun_at = ended_at - float(entry["SWARM_SECONDS"])
            journal.runs.append(TaskRun(found[2], host, invocation, begun_at, ended_at, found[3]))


def _at(entry: Mapping[str, Any]) -> float:
    """When it was sent, else when it came; microseconds in the journal."""
    moment = entry.get("_SOURCE_REALTIME_TIMESTAMP") or entry["__REALTIME_TIMESTAMP"]
    return int(moment) / 1e6

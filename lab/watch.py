"""What the demo sees while the swarm works: the scaler's view, tasks as their results come in."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from lab.commands import LabError, run
from swarm.client import Client, TaskResult

_RUNNING = {"starting", "idle", "busy", "unreported"}
_LEAVING = {"draining", "stopping"}


@dataclass(frozen=True, slots=True)
class Glance:
    """One look at the scaler's last turn, for one pool."""

    seconds: float
    waiting: int | None
    desired: int
    running: dict[str, int]
    """Instances by host."""
    leaving: int
    """Those that drain or stop, on all hosts."""

    @property
    def total(self) -> int:
        return sum(self.running.values())

    def row(self) -> str:
        """The line of the timeline, under `header`."""
        waiting = "?" if self.waiting is None else str(self.waiting)
        hosts = "".join(f"{count:>9}" for count in self.running.values())
        return f"{self.seconds:>7.0f} s {waiting:>9} {self.desired:>9} {hosts}"


def header(hosts: Sequence[str]) -> str:
    """Titles of the timeline's columns."""
    columns = "".join(f"{host:>9}" for host in hosts)
    return f"{'time':>9} {'waiting':>9} {'desired':>9} {columns}   (running instances by host)"


def look(ssh_config: str, pool: str, *, since: float) -> Glance:
    """Ask the control host what its scaler sees.

    Raises:
        LabError: the host or the scaler does not answer.
    """
    answer = run(["ssh", "-F", ssh_config, "control", "swarm status --json"], timeout_s=15)
    try:
        document = json.loads(answer)
        decision = document["pools"][pool]
        states = {
            host: [each["state"] for each in report["instances"] if each["pool"] == pool]
            for host, report in document["hosts"].items()
        }
        return Glance(
            seconds=time.monotonic() - since,
            waiting=decision["waiting"],
            desired=decision["desired"],
            running={host: sum(s in _RUNNING for s in there) for host, there in states.items()},
            leaving=sum(s in _LEAVING for there in states.values() for s in there),
        )
    except (ValueError, KeyError) as exc:
        raise LabError(f"the scaler's status is not understood: {exc}") from exc


@dataclass(slots=True)
class Tasks:
    """Submitted tasks and the results that have come in."""

    client: Client
    ids: list[str] = field(default_factory=list)
    results: dict[str, TaskResult] = field(default_factory=dict)

    def collect(self) -> None:
        """Take in every result that is there."""
        for task_id in self.ids:
            if task_id not in self.results:
                result = self.client.result(task_id)
                if result.state != "pending":
                    self.results[task_id] = result

    @property
    def succeeded(self) -> list[TaskResult]:
        return [result for result in self.results.values() if result.state == "done"]

    @property
    def failed(self) -> list[TaskResult]:
        return [result for result in self.results.values() if result.state == "failed"]

    @property
    def missing(self) -> int:
        return len(self.ids) - len(self.results)


def progress_bar(done: int, total: int, *, width: int = 40) -> str:
    """`[####------] 80 of 200`."""
    filled = width * done // total
    return f"[{'#' * filled}{'-' * (width - filled)}] {done} of {total} tasks done"


def watch(ssh_config: str, pool: str, *, since: float, pause_s: float) -> Iterator[Glance]:
    """Look again and again; a look that failed is skipped, a scaler that stays away is not."""
    misses = 0
    while True:
        try:
            yield look(ssh_config, pool, since=since)
            misses = 0
        except LabError:
            misses += 1
            if misses >= 5:
                raise
        time.sleep(pause_s)

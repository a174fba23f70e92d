"""Cancels a task wherever it is: marked in the broker first, then looked for, then given up.

The mark keeps it from being started from then on, so what is found waiting afterwards is as good as
cancelled, and what runs can only end. Neighbours: `delivery` finds and marks, `swarm-unitctl
cancel` asks the instances of a host, whose `worker.cancelling` gives the task up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from swarm.client import TaskResult

#: Looks at queues and hosts: a task that moved from one to the other in between is seen later.
_LOOKS = 3
#: Seconds for the end of a task that was given up to be committed.
_END_S = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """What one instance said, or a whole host; `outcome` is `error` with `reason` then."""

    where: str
    outcome: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of it, for people; `done` when the task is cancelled."""

    done: bool
    message: str


class Results(Protocol):
    """The part of `swarm.client.Client` that is needed."""

    def result(self, task_id: str, *, wait_s: float = 0.0) -> TaskResult: ...

    def revoke(self, task_id: str) -> None: ...


class Cancellation:
    """`waits` looks in the queues, `ask_hosts` asks every instance to give the task up."""

    def __init__(
        self,
        results: Results,
        *,
        waits: Callable[[str], bool],
        ask_hosts: Callable[[str], Sequence[Found]],
    ) -> None:
        self._results = results
        self._waits = waits
        self._ask_hosts = ask_hosts

    def cancel(self, task_id: str) -> Verdict:
        """Cancel it if that can be; takes up to half a minute."""
        if (ended := self._ended(task_id)) is not None:
            return ended
        self._results.revoke(task_id)
        silent: list[Found] = []
        for _ in range(_LOOKS):
            if self._waits(task_id):
                return Verdict(done=True, message="cancelled while queued; it will not be started")
            answers = self._ask_hosts(task_id)
            for found in answers:
                if (verdict := self._by_instance(task_id, found)) is not None:
                    return verdict
            if (ended := self._ended(task_id)) is not None:
                return ended
            silent = [found for found in answers if found.outcome == "error"]
        if silent:
            told = "; ".join(f"{found.where}: {found.reason}" for found in silent)
            return Verdict(
                done=False,
                message=f"not found where somebody answered. It will not be started again. {told}",
            )
        told = "it does not wait, no instance has it, and no result is kept"
        return Verdict(done=False, message=f"no such task: {told}")

    def _by_instance(self, task_id: str, found: Found) -> Verdict | None:
        match found.outcome:
            case "cancelled":
                return self._given_up(task_id, found.where)
            case "revoked":
                return Verdict(
                    done=True, message=f"cancelled while queued; {found.where} had not begun it"
                )
            case "uninterruptible":
                message = f"cannot be interrupted: it runs on {found.where}, and is no browser job"
                return Verdict(
                    done=False, message=f"{message} that could be given up; it will not be retried"
                )
            case "no-answer":
                message = f"the process that runs it on {found.where} does not answer"
                return Verdict(
                    done=False, message=f"{message}; it is killed at the pool's time limit"
                )
        return None

    def _given_up(self, task_id: str, where: str) -> Verdict:
        result = self._results.result(task_id, wait_s=_END_S)
        if result.state == "pending":
            return Verdict(
                done=False,
                message=f"{where} gives it up; it has not ended yet (swarm result {task_id})",
            )
        if result.state == "failed" and "CANCELLED" in str(result.error):
            return Verdict(done=True, message=f"cancelled while running on {where}")
        return Verdict(done=False, message=f"it ended before it could be given up: {_told(result)}")

    def _ended(self, task_id: str) -> Verdict | None:
        result = self._results.result(task_id)
        if result.state == "pending":
            return None
        return Verdict(done=False, message=f"already ended: {_told(result)}")


def _told(result: TaskResult) -> str:
    return result.state if result.error is None else f"{result.state}, {result.error}"

"""The one error tree. Adapters translate library exceptions into it with `raise ... from exc`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SwarmError(Exception):
    """Something in swarm went wrong."""

    exit_status = 1


class TransientError(SwarmError):
    """It may work if it is tried again."""


class PermanentError(SwarmError):
    """It will fail again however often it is tried."""


class BrokerAwayError(TransientError):
    """The broker did not answer; nothing was queued."""

    exit_status = 3


class ScalerAwayError(TransientError):
    """The scaler did not answer; nothing was changed."""

    exit_status = 3


class AlreadyRunningError(SwarmError):
    """Another process does this already; nothing was touched."""

    exit_status = 4


class DeadLetteredError(PermanentError):
    """The task is in the dead-letter list; `swarm dead show` tells why."""


class DuplicateTaskError(PermanentError):
    """A task with this idempotency key was accepted before; it has the id `task_id`."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(task_id)

    def __str__(self) -> str:
        return f"the idempotency key belongs to task {self.task_id}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong value: where it stands, what it is, and what was expected there."""

    where: str
    value: str
    expected: str

    def __str__(self) -> str:
        return f"{self.where}: got {self.value}, expected {self.expected}"


class ConfigError(SwarmError):
    """The configuration or the input is wrong; every problem is reported at once."""

    exit_status = 2

    def __init__(self, problems: Sequence[Problem] | str) -> None:
        """With the problems; with their text where Celery makes it anew from a stored result."""
        self.problems = () if isinstance(problems, str) else tuple(problems)
        super().__init__(
            problems if isinstance(problems, str) else "\n".join(map(str, self.problems))
        )

    @classmethod
    def of(cls, where: str, value: str, expected: str) -> ConfigError:
        """With one problem."""
        return cls([Problem(where, value, expected)])

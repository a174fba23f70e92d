"""What ending a task does to Redis, collected until it is done in one step.

Celery publishes a task's successors before it stores the result, each with commands of its own,
and the parent acknowledges last. Between a task's last line and its commit, everything that this
thread publishes or stores goes into the task's `Outcome` instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_URL, uuid5


@dataclass(frozen=True, slots=True)
class Successor:
    """A message to be put into the list `key`; `due` in epoch milliseconds, "" for now."""

    key: str
    message: str
    due: str
    task_id: str


@dataclass(slots=True)
class Outcome:
    """Effects in the form that the commit script reads, and the successors among them."""

    tag: str
    task_id: str
    effects: list[Any] = field(default_factory=list)
    successors: list[Successor] = field(default_factory=list)
    goes_on: bool = False
    """Others answer for the task from here: it is retried or replaced."""
    is_closed: bool = False
    """It is committed, or handed over to be."""

    @property
    def is_last(self) -> bool:
        """Whether the task ends here."""
        return not self.goes_on and all(
            successor.task_id != self.task_id for successor in self.successors
        )

    def store(self, key: str | bytes, value: str | bytes, ttl_s: int) -> None:
        self.effects += ["store", key, value, ttl_s]

    def answer(self, key: str | bytes, value: str | bytes) -> None:
        """Tell those who wait for the result at `key`."""
        self.effects += ["answer", key, value]

    def delete(self, key: str | bytes) -> None:
        self.effects += ["delete", key]

    def add(self, key: str | bytes, number: int, ttl_s: int) -> None:
        self.effects += ["add", key, number, ttl_s]

    def enqueue(self, successor: Successor) -> None:
        self.successors.append(successor)

    def add_part(
        self,
        group: str | bytes,
        score: float | str,
        member: str | bytes,
        ttl_s: int,
        completion: Successor,
    ) -> None:
        self.effects += ["part", group, score, member, ttl_s, completion.key, completion.message]

    def arguments(self, holder: str, *, done_ttl_s: int) -> list[Any]:
        """The commit script's arguments."""
        successors: list[Any] = []
        for successor in self.successors:
            successors += ["enqueue", successor.key, successor.message, successor.due]
        done = done_ttl_s if self.is_last else 0
        return [holder, self.tag, self.task_id, done, *self.effects, *successors]


_collecting: ContextVar[Outcome | list[Successor] | None] = ContextVar("collecting", default=None)


def collecting() -> Outcome | None:
    """The outcome that takes up what this thread stores, if any."""
    sink = _collecting.get()
    return sink if isinstance(sink, Outcome) else None


def is_collecting() -> bool:
    """Whether what this thread publishes is kept for later."""
    return _collecting.get() is not None


def collect(successor: Successor) -> bool:
    """Keep a message for later; False when it is to be published now."""
    sink = _collecting.get()
    if sink is None:
        return False
    if isinstance(sink, Outcome):
        sink.enqueue(successor)
    else:
        sink.append(successor)
    return True


@contextmanager
def captured() -> Iterator[list[Successor]]:
    """Messages published inside go into the list, and nowhere else."""
    messages: list[Successor] = []
    token = _collecting.set(messages)
    try:
        yield messages
    finally:
        _collecting.reset(token)


def delivery_tag(request: Any) -> str | None:
    """The tag of the message that a request came with; None where there is no message."""
    properties = getattr(request, "properties", None)
    if not properties or getattr(request, "is_eager", False):
        return None
    tag: str | None = properties.get("delivery_tag")
    return tag


def outcome_of(request: Any, *, anew: bool = False) -> Outcome | None:
    """The request's outcome, begun when it is first asked for; None where nothing is held."""
    tag = delivery_tag(request)
    if tag is None:
        return None
    outcome: Outcome | None = getattr(request, "outcome", None)
    if outcome is None or (anew and not outcome.is_closed):
        outcome = Outcome(tag, request.id)
        request.outcome = outcome
    return outcome


def begin(request: Any) -> None:
    """From here to `end`, this thread collects for the request."""
    outcome = outcome_of(request)
    if outcome is not None:
        _collecting.set(outcome)


def end() -> None:
    """Publish and store at once again."""
    _collecting.set(None)


@contextmanager
def collected(request: Any, *, anew: bool = False) -> Iterator[Outcome | None]:
    """Collect for the request inside, and go on as before afterwards."""
    outcome = outcome_of(request, anew=anew)
    if outcome is None or outcome.is_closed:
        yield None
        return
    token = _collecting.set(outcome)
    try:
        yield outcome
    finally:
        _collecting.reset(token)


def successor_id(task_id: str, role: str) -> str:
    """The same id whenever the same task ends the same way, so that a repetition is known."""
    return str(uuid5(NAMESPACE_URL, f"swarm:{task_id}:{role}"))

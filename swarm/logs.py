"""Logging for services under systemd: one sentence a line, then `key=value` fields.

Where stderr is the journal, fields are fields there too, and a line that belongs to a task has its
id as SWARM_TASK_ID. Elsewhere journald reads the `<N>` prefix as the priority, so that
`journalctl -p warning` works.
"""

from __future__ import annotations

import contextvars
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar, Token
from typing import TextIO

from swarm.journal import PRIORITIES, JournalHandler, is_journal

#: The id of the task on whose behalf this thread or coroutine works.
_task_id: ContextVar[str] = ContextVar("task_id", default="")


class _ServiceFormatter(logging.Formatter):
    def __init__(self, *, priority_prefix: bool) -> None:
        super().__init__("%(message)s")
        self._priority_prefix = priority_prefix

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = getattr(record, "fields", None)
        if fields:
            line = f"{line} {format_fields(fields)}"
        if self._priority_prefix:
            priority = PRIORITIES.get(record.levelno, 6)
            # journald splits at newlines, and each line needs the prefix again.
            return "\n".join(f"<{priority}>{part}" for part in line.splitlines())
        return line


def task_of(record: logging.LogRecord) -> str:
    """The id of the task that a record is about; empty where there is none."""
    # What Celery says of a task it says in the worker's own process too, where none is bound.
    celery_data = getattr(record, "data", None)
    named = celery_data.get("id") if isinstance(celery_data, dict) else None
    return str(named or _task_id.get())


def begin_task(task_id: str) -> Token[str]:
    """What this thread logs from here to `end_task` belongs to the task."""
    return _task_id.set(task_id)


def end_task(token: Token[str]) -> None:
    """As it was before `begin_task`."""
    _task_id.reset(token)


@contextmanager
def of_task(task_id: str) -> Iterator[None]:
    """What is logged inside belongs to the task."""
    token = begin_task(task_id)
    try:
        yield
    finally:
        end_task(token)


def of_no_task() -> Context:
    """A context for work that a task sets off and others profit from."""
    context = contextvars.copy_context()
    context.run(_task_id.set, "")
    return context


def format_fields(fields: Mapping[str, object]) -> str:
    """Render `{"host": "worker1", "why": "no room"}` as `host=worker1 why="no room"`."""

    def render(value: object) -> str:
        text = f"{value:.1f}" if isinstance(value, float) else str(value)
        return f'"{text}"' if " " in text or text == "" else text

    return " ".join(f"{key}={render(value)}" for key, value in fields.items())


def setup(
    level: str = "info",
    *,
    stream: TextIO | None = None,
    under_systemd: bool,
    environ: Mapping[str, str] = os.environ,
    identity: Mapping[str, str] | None = None,
) -> None:
    """Send every record to `stream` (stderr by default); replaces earlier handlers.

    `identity` are fields of every entry in the journal: {"SWARM_POOL": "browser"}.
    """
    stream = stream or sys.stderr
    handler: logging.Handler = logging.StreamHandler(stream)
    handler.setFormatter(_ServiceFormatter(priority_prefix=under_systemd))
    if is_journal(stream, environ):

        def context(record: logging.LogRecord) -> Mapping[str, str]:
            task_id = task_of(record)
            return {**(identity or {}), **({"SWARM_TASK_ID": task_id} if task_id else {})}

        handler = JournalHandler(context, handler)
        handler.setFormatter(_ServiceFormatter(priority_prefix=False))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # asyncssh tells every command of every turn.
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def flush() -> None:
    """Before a process ends without Python's own farewell."""
    for handler in logging.getLogger().handlers:
        handler.flush()

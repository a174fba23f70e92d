"""What pool children tell their parent, through a pipe that outlives each of them.

The parent alone speaks to systemd, Prometheus and the status file; with prefork it cannot see
into the children that run the tasks. Messages are JSON lines shorter than PIPE_BUF, so those of
several children never mix. With solo and threads the same pipe leads back to the same process.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

#: Writes up to this many bytes are atomic (pipe(7)).
_PIPE_BUF = select.PIPE_BUF

MessageKind = Literal["process-ready", "process-failed", "browser", "task"]


@dataclass(frozen=True, slots=True)
class Message:
    """One event in a worker process.

    `label` is the browser's event, the task's outcome or the reason of a failure.
    """

    kind: MessageKind
    pid: int
    label: str = ""
    task: str = ""
    seconds: float = 0.0


class Telemetry:
    """Both ends of the pipe; made by the parent before it forks."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        # A full pipe means the parent is stuck; a task must not wait for it.
        os.set_blocking(self._writer, False)

    def process_ready(self) -> None:
        self._send(Message("process-ready", os.getpid()))

    def process_failed(self, reason: str) -> None:
        self._send(Message("process-failed", os.getpid(), label=reason[:1000]))

    def browser_event(self, event: str) -> None:
        self._send(Message("browser", os.getpid(), label=event))

    def task_ended(self, task: str, outcome: str, seconds: float) -> None:
        self._send(Message("task", os.getpid(), label=outcome, task=task[:200], seconds=seconds))

    def read(self, handle: Callable[[Message], None], *, timeout_s: float) -> None:
        """Handle what has come, waiting up to `timeout_s` seconds for the first message."""
        ready, _, _ = select.select([self._reader], [], [], timeout_s)
        if ready:
            for message in self._received():
                handle(message)

    def _received(self) -> Iterator[Message]:
        chunk = os.read(self._reader, 1 << 16)
        while chunk and not chunk.endswith(b"\n"):
            chunk += os.read(self._reader, 1 << 16)
        for line in chunk.splitlines():
            yield Message(**json.loads(line))

    def _send(self, message: Message) -> None:
        line = json.dumps(asdict(message), ensure_ascii=True).encode() + b"\n"
        if len(line) > _PIPE_BUF:
            line = json.dumps(asdict(Message(message.kind, message.pid))).encode() + b"\n"
        try:
            os.write(self._writer, line)
        except BlockingIOError:
            return

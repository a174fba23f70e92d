"""What pool children tell their parent, through a pipe that outlives each of them.

The parent alone speaks to systemd, Prometheus and the status file; with prefork it cannot see
into the children that run the tasks. Messages are JSON lines shorter than PIPE_BUF, so those of
several children never mix. With solo and threads the same pipe leads back to the same process.
"""

from __future__ import annotations

import json
import os
import select
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from swarm.brokers.counting import Place, requests

#: Writes up to this many bytes are atomic (pipe(7)).
_PIPE_BUF = select.PIPE_BUF

MessageKind = Literal["process-ready", "process-failed", "browser", "contexts", "task", "job"]


@dataclass(frozen=True, slots=True)
class Message:
    """One event in a worker process.

    `label` is the browser's event, the task's outcome or the reason of a failure.
    """

    kind: MessageKind
    pid: int
    label: str = ""
    cause: str = ""
    """Of a browser's event; of a task's end its error code."""
    task: str = ""
    seconds: float = 0.0
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage: of a task `queue` where it is known, of a browser job the others."""
    count: int = 0
    """Contexts that are open in the process; bytes that a job's pages received; the exit status
    that a failed start asks for."""
    artifact_bytes: int = 0
    requests: int = 0
    """What the process has asked of a metered broker since its last message."""


class Telemetry:
    """Both ends of the pipe; made by the parent before it forks."""

    def __init__(self, *, metered: Place | None = None) -> None:
        """`metered` is the broker of which pool processes tell their requests."""
        self.metered = metered
        self._parent = os.getpid()
        self._reader, self._writer = os.pipe()
        # A full pipe means the parent is stuck; a task must not wait for it.
        os.set_blocking(self._writer, False)

    def process_ready(self) -> None:
        self._send(Message("process-ready", os.getpid()))

    def process_failed(self, reason: str, *, exit_status: int = 0) -> None:
        """`exit_status` is what the worker is to end with; 0 for any failure."""
        self._send(Message("process-failed", os.getpid(), label=reason[:1000], count=exit_status))

    def browser_event(self, event: str, cause: str = "") -> None:
        """As an engine's `on_event`."""
        self._send(Message("browser", os.getpid(), label=event, cause=cause))

    def contexts(self, count: int) -> None:
        """As an engine's `on_contexts`."""
        self._send(Message("contexts", os.getpid(), count=count))

    def task_ended(
        self, task: str, outcome: str, seconds: float, code: str = "", queue_s: float | None = None
    ) -> None:
        stages = {} if queue_s is None else {"queue": queue_s}
        self._send(
            Message(
                "task",
                os.getpid(),
                label=outcome,
                cause=code,
                task=task[:200],
                seconds=seconds,
                stages=stages,
                requests=self._requests(),
            )
        )

    def _requests(self) -> int:
        """Of a pool process; those of the parent are known there."""
        if self.metered is None or os.getpid() == self._parent:
            return 0
        return requests.take(self.metered)

    def job_ended(
        self, timings_s: Mapping[str, float], received_bytes: int, artifact_bytes: int
    ) -> None:
        """A browser job's seconds by stage and its bytes, however it ended."""
        # Its task tells how long it was queued, as any task does.
        stages = {stage: seconds for stage, seconds in timings_s.items() if stage != "queue"}
        self._send(
            Message(
                "job",
                os.getpid(),
                stages=stages,
                count=received_bytes,
                artifact_bytes=artifact_bytes,
            )
        )

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

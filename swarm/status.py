"""What an instance says of itself in /run/swarm/instances/<pool>-<N>.json.

The worker writes it, `swarm-unitctl list` passes it on and the scaler parses it. Times are
seconds of the host's monotonic clock (CLOCK_MONOTONIC, shared by all its processes), so a
stepped wall clock or two hosts that disagree change nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

VERSION = 1

#: Tasks at a time that an instance can be configured for.
MOST_PLACES = 64

InstancePhase = Literal["starting", "running", "stopping"]
DrainState = Literal["consuming", "stopping", "idle"]
# Bounds beyond which none is true, and sums and quotients of them stay numbers.
Count = Annotated[int, Field(ge=0, le=10**12, strict=True)]
Seconds = Annotated[float, Field(ge=0, le=1e10, strict=True)]


# Its file is written by the user that runs the tasks: nothing in it is believed unchecked.
_CHECKED = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """How far an instance has stopped consuming without being stopped."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    state: DrainState
    """`stopping` while it has tasks, running or reserved; `idle` when it has none and gets none."""
    sequence: Count
    """Rises with each change of state, within one process: idle twice under one number is idle all
    the time in between."""
    since: Seconds
    """Monotonic seconds: when it stopped consuming; of `consuming`, when it began to."""

    def __str__(self) -> str:
        return {"stopping": "draining", "idle": "drained"}.get(self.state, self.state)


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance at one moment."""

    __pydantic_config__: ClassVar[ConfigDict] = _CHECKED

    pool: str
    number: Count
    host: str
    pid: Count
    phase: InstancePhase
    capacity: Annotated[int, Field(ge=1, le=MOST_PLACES, strict=True)]
    active: Count
    """Tasks being run."""
    reserved: Count
    """Tasks taken from the queue and not started."""
    done: Count
    failed: Count
    idle_since: Seconds | None
    """Monotonic seconds; None while anything is active or reserved."""
    boot_time_s: Seconds | None
    service_time_s: Seconds | None
    """Smoothed seconds a task takes; None until one has ended."""
    broker: str
    """`ok`; `away` before the first connection and after a loss; then what the attempts to connect
    come to: `slow`, `down`, `limited` or `refused`."""
    browser: str
    """`up`, `down`, or `none` for pools without one."""
    written_at: Seconds
    """Monotonic seconds."""
    queues: tuple[str, ...] | None = None
    """Queues it consumes; None for its pool's own."""
    paused: str | None = None
    """Why it takes no tasks for now: `memory 92 % of 1.5 GiB`; None while it does."""
    requests: Count | None = None
    """Requests that this process and its pool processes have made of a metered broker since it
    started; None where they are not metered."""
    drain: DrainStatus | None = None
    """None while it consumes."""
    version: int = VERSION

    @classmethod
    def from_mapping(cls, document: Mapping[str, Any]) -> InstanceStatus:
        """Raises `ValueError` when a field is missing, unknown, wrong or of another version."""
        if document.get("version") != VERSION:
            raise ValueError(f"status version {document.get('version')!r}, expected {VERSION}")
        try:
            return _ADAPTER.validate_python(document)
        except ValidationError as exc:
            wrong = ", ".join(".".join(map(str, detail["loc"])) for detail in exc.errors())
            raise ValueError(f"status with wrong {wrong}") from exc

    def document(self) -> dict[str, Any]:
        """What its file holds."""
        document = asdict(self)
        # A scaler of an earlier release knows no such fields.
        for name in ("paused", "requests", "drain"):
            if document[name] is None:
                del document[name]
        return document

    def write(self, directory: Path) -> None:
        """Replace the file in one step, so that a reader never sees half of it.

        Raises:
            OSError: the directory is missing, full or not writable.
        """
        target = directory / f"{self.pool}-{self.number}.json"
        scratch = target.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps(self.document()), encoding="utf-8")
        # The scaler's user reads it through swarm-unitctl, whatever the unit's umask.
        scratch.chmod(0o644)
        scratch.replace(target)

    def line(self, *, broker_name: str) -> str:
        """The STATUS line of `systemctl status`."""
        parts = [f"{self.active} busy of {self.capacity}", f"{self.done} done"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.browser == "down":
            parts.append("browser down")
        away = "" if self.broker == "ok" else f" {self.broker}"
        phase = "" if self.phase == "running" else f"{self.phase}, "
        paused = f"paused: {self.paused}, " if self.paused else ""
        drain = f"{self.drain}, " if self.drain else ""
        return f"{self.pool}: {phase}{drain}{paused}{', '.join(parts)}, redis {broker_name}{away}"


_ADAPTER = TypeAdapter(InstanceStatus)

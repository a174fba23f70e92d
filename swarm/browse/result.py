"""What a browser task answers: plain values that become JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "partial", "failed"]


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a task left in the store.

    `url` alone says where: `file://HOST/PATH` for a directory on the host that did the task,
    `http://...` for the fleet's store. `expires` is in ISO 8601, UTC.
    """

    id: str
    kind: str
    mime: str
    bytes: int
    sha256: str
    expires: str
    url: str


@dataclass(frozen=True, slots=True)
class BrowserUse:
    """The browser that did a job."""

    version: str
    uses: int
    age_s: float


@dataclass(frozen=True, slots=True)
class StepOutcome:
    """What became of one step or action; `name` is as in the payload."""

    name: str
    kind: str
    status: Literal["ok", "failed", "skipped"]
    ms: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """One hop on the way to the final URL."""

    url: str
    status: int | None


@dataclass(frozen=True, slots=True)
class ConsoleLine:
    """One line that the page wrote to its console, cut to a sensible length."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class NetworkCounts:
    """Requests of the page and its frames."""

    requests: int = 0
    failed: int = 0
    blocked: int = 0
    """Those that the payload's own `network` kept from being sent."""
    bytes: int = 0
    """Bodies as on the wire: what servers announced, or what came where they did not."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the job failed, or the first optional step of a partial one."""

    code: str
    message: str
    retryable: bool
    stage: str


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a browser task answers; times are seconds unless the name says otherwise."""

    status: Status
    final_url: str
    http_status: int | None
    title: str
    redirects: tuple[Redirect, ...] = ()
    steps: tuple[StepOutcome, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    artifacts: tuple[Artifact, ...] = ()
    console: tuple[ConsoleLine, ...] = ()
    network: NetworkCounts = field(default_factory=NetworkCounts)
    timings_s: dict[str, float] = field(default_factory=dict)
    browser: BrowserUse | None = None
    """None when no browser was had."""
    error: Failure | None = None
    host: str = ""

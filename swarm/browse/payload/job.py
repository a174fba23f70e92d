"""A browser job: one page, what to do there and what to take home."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, ValidationError, model_validator

from swarm.browse.payload.actions import Action, Download, Extract, Screenshot
from swarm.browse.payload.context import ContextOptions
from swarm.browse.payload.options import CaptureOptions, Limits, NetworkOptions
from swarm.browse.payload.parts import Doing, Part
from swarm.browse.payload.steps import Evaluate, Step, WaitUntil
from swarm.browse.urls import PageUrl
from swarm.errors import ConfigError, Problem
from swarm.problems import problems_of

#: Redis holds every payload until its task is done.
MAX_PAYLOAD_BYTES = 2_000_000
#: Problems of one payload that are told: it may have one in each of its bytes.
_PROBLEMS_TOLD = 50
#: Stages of every job; an action of such a name could not be told from them in an error.
RESERVED_NAMES = frozenset({"payload", "queue", "launch", "navigation", "deadline", "cancel"})


class BrowserJob(Part):
    """One page, what to do there in order, and what to take home."""

    version: Literal[1] = 1
    url: PageUrl | None = None
    html: str | None = Field(default=None, min_length=1, max_length=1_000_000)
    """Markup to open in place of a URL, at about:blank."""
    wait_until: WaitUntil = "load"
    """When the page counts as open."""
    fail_on_http_status: bool = True
    """Whether a status of 400 or above fails the job."""
    steps: tuple[Step, ...] = Field(default=(), max_length=200, strict=False)
    actions: tuple[Action, ...] = Field(default=(), max_length=50, strict=False)
    context: ContextOptions = ContextOptions()
    network: NetworkOptions = NetworkOptions()
    capture: CaptureOptions = CaptureOptions()
    limits: Limits = Limits()
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=200)
    """Jobs of the same key are done once in 24 hours; the others are answered from its result."""

    @model_validator(mode="after")
    def _has_a_page_and_a_purpose(self) -> BrowserJob:
        if (self.url is None) == (self.html is None):
            raise ValueError("one of url and html")
        if not self.steps and not self.actions:
            raise ValueError("at least one step or action")
        return self

    @model_validator(mode="after")
    def _names_are_unique(self) -> BrowserJob:
        counts = Counter(self._data_keys())
        repeated = sorted(name for name, count in counts.items() if count > 1)
        reserved = sorted(counts.keys() & RESERVED_NAMES)
        if reserved:
            raise ValueError(f"each action to have another name than {', '.join(reserved)}")
        if repeated:
            raise ValueError(
                f"each action to have its own name, because outcomes are kept by name; "
                f"repeated: {', '.join(repeated)}"
            )
        return self

    @property
    def downloads(self) -> bool:
        """Whether it takes a file home."""
        return any(isinstance(action, Download) for action in self.actions)

    @property
    def is_file(self) -> bool:
        """Whether its URL is expected to answer with a file in place of a page."""
        return any(
            isinstance(action, Download) and action.selector is None for action in self.actions
        )

    def _data_keys(self) -> Iterator[str]:
        """What stands in `data`: of steps only some have a value."""
        valued: list[Doing] = [
            step for step in self.steps if isinstance(step, Screenshot | Extract | Evaluate)
        ]
        for doing in [*valued, *self.actions]:
            yield doing.name or doing.kind  # type: ignore[attr-defined]


def parse_browser_job(payload: object) -> BrowserJob:
    """A payload as it came from JSON.

    Raises:
        ConfigError: with every wrong field.
    """
    try:
        size = len(json.dumps(payload, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigError([Problem("payload", f"no JSON ({exc})", "one JSON object")]) from exc
    if size > MAX_PAYLOAD_BYTES:
        expected = f"at most {MAX_PAYLOAD_BYTES} bytes of JSON"
        raise ConfigError([Problem("payload", f"{size} bytes", expected)])
    try:
        # JSON has no tuples and its numbers may come as int: both are allowed for by the models.
        return BrowserJob.model_validate(payload)
    except ValidationError as exc:
        problems = list(problems_of(exc, prefix="payload: "))
        if (more := len(problems) - _PROBLEMS_TOLD) > 0:
            rest = Problem("payload", f"{more} more problems", "none")
            problems = [*problems[:_PROBLEMS_TOLD], rest]
        raise ConfigError(problems) from exc

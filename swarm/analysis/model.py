"""What an analysis task asks for and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.browse.urls import PageUrl
from swarm.errors import ConfigError
from swarm.problems import problems_of

MAX_HTML_CHARACTERS = 10_000_000


class AnalysisJob(BaseModel):
    """Markup to analyse; `url` is where it came from, against which links are resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    html: str = Field(min_length=1, max_length=MAX_HTML_CHARACTERS)
    url: PageUrl | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """An address and the words that lead to it."""

    href: str
    text: str


@dataclass(frozen=True, slots=True)
class AnalysisResult:
    """What a reader would take from the page; absent metadata is None, absent text is empty."""

    title: str | None
    author: str | None
    date: str | None
    description: str | None
    site_name: str | None
    text: str
    words: int
    links: tuple[Link, ...]
    status: Literal["ok"] = "ok"


def parse_analysis_job(payload: object) -> AnalysisJob:
    """A payload as it came from JSON.

    Raises:
        ConfigError: with every wrong field.
    """
    try:
        return AnalysisJob.model_validate(payload)
    except ValidationError as exc:
        raise ConfigError(list(problems_of(exc, prefix="payload: "))) from exc

"""What a browser task asks for and what it answers.

Payloads are refused at submit when they name an unknown field or a URL that is not http(s), so
a worker never meets one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from swarm.errors import ConfigError, PermanentError, TransientError
from swarm.settings import problems_of

MAX_URL_CHARACTERS = 8192


class ErrorCode(StrEnum):
    """Why a task failed. The list is closed: callers may branch on it."""

    NAV_TIMEOUT = "NAV_TIMEOUT"
    DNS = "DNS"
    NAVIGATION = "NAVIGATION"
    HTTP_STATUS = "HTTP_STATUS"
    SELECTOR_TIMEOUT = "SELECTOR_TIMEOUT"
    DEADLINE = "DEADLINE"
    PAGE_CRASH = "PAGE_CRASH"
    BROWSER_LOST = "BROWSER_LOST"
    ACTION_FAILED = "ACTION_FAILED"
    RESOURCE_LIMIT = "RESOURCE_LIMIT"

    @property
    def retryable(self) -> bool:
        return self in {
            ErrorCode.NAV_TIMEOUT,
            ErrorCode.DNS,
            ErrorCode.NAVIGATION,
            ErrorCode.PAGE_CRASH,
            ErrorCode.BROWSER_LOST,
        }


class JobError(Exception):
    """A job failed; `stage` is launch, navigation or the action's name."""

    def __init__(self, code: str, message: str, stage: str) -> None:
        # Celery stores `args` as JSON and builds the exception from them again: hence positional
        # parameters, and a code that may come as a plain string.
        super().__init__(str(code), message, stage)
        self.code = ErrorCode(code)
        self.message = message
        self.stage = stage

    def __str__(self) -> str:
        return f"{self.code} in {self.stage}: {self.message}"


class TransientJobError(JobError, TransientError):
    """It may pass: Celery retries it with backoff."""


class PermanentJobError(JobError, PermanentError):
    """It will fail again."""


def job_error(
    code: ErrorCode, message: str, *, stage: str, retryable: bool | None = None
) -> JobError:
    """The error of the class that decides whether it is retried; by its code when not given."""
    retry = code.retryable if retryable is None else retryable
    kind = TransientJobError if retry else PermanentJobError
    return kind(code, message, stage)


def _check_url(url: str) -> str:
    if len(url) > MAX_URL_CHARACTERS:
        raise ValueError(f"a URL of at most {MAX_URL_CHARACTERS} characters")
    if any(ord(character) <= 0x20 for character in url):
        raise ValueError("a URL without spaces and control characters")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as exc:
        raise ValueError(f"a URL that can be parsed ({exc})") from exc
    if parts.scheme not in {"http", "https"}:
        raise ValueError("a URL whose scheme is http or https")
    if not parts.hostname:
        raise ValueError("a URL with a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL without user and password")
    return url


PageUrl = Annotated[str, AfterValidator(_check_url)]
Selector = Annotated[str, Field(min_length=1, max_length=2000)]
#: Stages of every job; an action of such a name could not be told from them in an error.
RESERVED_NAMES = frozenset({"launch", "navigation", "deadline"})
ActionName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Action(_Part):
    name: ActionName | None = None
    """Key of the outcome in `data`; the kind when not given."""


class Screenshot(_Action):
    """A PNG of the viewport, or of the whole page."""

    kind: Literal["screenshot"]
    full_page: bool = False


class Html(_Action):
    """The document's markup after scripts ran."""

    kind: Literal["html"]


class Text(_Action):
    """The text that a reader sees (`innerText`), of the page or of one element."""

    kind: Literal["text"]
    selector: Selector = "body"


class ExtractField(_Part):
    """One value: the text or an attribute of the first element that matches, or of all."""

    selector: Selector
    attribute: str | None = Field(default=None, min_length=1, max_length=200)
    many: bool = False


class Extract(_Action):
    """Named values picked by selectors; absent elements give null, or an empty list."""

    kind: Literal["extract"]
    fields: dict[ActionName, ExtractField] = Field(min_length=1, max_length=200)


Action = Annotated[Screenshot | Html | Text | Extract, Field(discriminator="kind")]


class BrowserJob(_Part):
    """One page and what to do there, in order."""

    version: Literal[1] = 1
    url: PageUrl
    actions: tuple[Action, ...] = Field(min_length=1, max_length=50, strict=False)
    navigation_timeout_s: float = Field(default=30, gt=0, le=300)
    deadline_s: float = Field(default=60, gt=0, le=600)
    """Seconds for everything, after which the page is given up whatever it does."""
    viewport_width: int = Field(default=1280, ge=100, le=4096)
    viewport_height: int = Field(default=800, ge=100, le=4096)

    @model_validator(mode="after")
    def _names_are_unique(self) -> BrowserJob:
        counts = Counter(action.name or action.kind for action in self.actions)
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


def parse_browser_job(payload: object) -> BrowserJob:
    """A payload as it came from JSON.

    Raises:
        ConfigError: with every wrong field.
    """
    try:
        # JSON has no tuples and its numbers may come as int: both are allowed for by the models.
        return BrowserJob.model_validate(payload)
    except ValidationError as exc:
        raise ConfigError(list(problems_of(exc, prefix="payload: "))) from exc


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
class JobResult:
    """What a browser task answers; times are seconds."""

    final_url: str
    http_status: int | None
    title: str
    data: dict[str, Any]
    artifacts: tuple[Artifact, ...]
    timings_s: dict[str, float]
    browser: BrowserUse
    host: str = ""
    status: Literal["ok"] = field(default="ok")

"""Named secrets of the deployment: payloads refer to them, so that they never lie in Redis.

One YAML file, readable by workers only. Each secret says which hosts it may be used on: whoever
may submit a task could send it anywhere otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from swarm.browse.errors import ErrorCode, job_error
from swarm.browse.payload.parts import SecretName, SecretReference
from swarm.browse.urls import host_of, without_query
from swarm.errors import ConfigError, Problem
from swarm.problems import problems_of

Hosts = Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
#: What stands in place of a secret wherever its value turns up.
REDACTED = "***"
#: Shorter values would turn up by chance.
_SHORTEST_REDACTED = 4


class _Secret(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class HttpAuth(_Secret):
    """A user and password for HTTP authentication."""

    type: Literal["http_auth"]
    username: str
    password: str = Field(repr=False)
    hosts: Hosts

    def values(self) -> Iterable[str]:
        return [self.password]


class Proxy(_Secret):
    """A proxy that a job's page goes through."""

    type: Literal["proxy"]
    server: str = Field(pattern=r"^(https?|socks5)://[^\s/@]+$")
    username: str | None = None
    password: str | None = Field(default=None, repr=False)

    def values(self) -> Iterable[str]:
        return [self.password or ""]


class StorageState(_Secret):
    """Cookies and local storage, as Playwright's `storage_state` writes them."""

    type: Literal["storage_state"]
    state: dict[str, Any] = Field(repr=False)
    hosts: Hosts

    def values(self) -> Iterable[str]:
        for cookie in self.state.get("cookies", ()):
            yield str(cookie.get("value", ""))
        for origin in self.state.get("origins", ()):
            for item in origin.get("localStorage", ()):
                yield str(item.get("value", ""))


class Text(_Secret):
    """A text for a form field or a header."""

    type: Literal["text"]
    value: str = Field(repr=False)
    hosts: Hosts

    def values(self) -> Iterable[str]:
        return [self.value]


Secret = Annotated[HttpAuth | Proxy | StorageState | Text, Field(discriminator="type")]
_FILE: TypeAdapter[dict[SecretName, Secret]] = TypeAdapter(dict[SecretName, Secret])
_Kind = TypeVar("_Kind", HttpAuth, Proxy, StorageState, Text)


class Secrets:
    """The secrets by name."""

    def __init__(self, secrets: Mapping[str, HttpAuth | Proxy | StorageState | Text]) -> None:
        self._secrets = secrets

    @classmethod
    def parse(cls, text: str, *, where: str) -> Secrets:
        """Read the file's text.

        Raises:
            ConfigError: with every problem, and with no value.
        """
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as exc:
            # Its text quotes the line.
            raise ConfigError([Problem(where, "text that is no YAML", "a mapping")]) from exc
        try:
            return cls(_FILE.validate_python(document or {}))
        except ValidationError as exc:
            problems = problems_of(exc, prefix=f"{where}: ")
            raise ConfigError([Problem(p.where, REDACTED, p.expected) for p in problems]) from None

    def find(self, name: str, kind: type[_Kind], *, stage: str) -> _Kind:
        """The secret of this name and type.

        Raises:
            JobError: INVALID, there is none.
        """
        secret = self._secrets.get(name)
        if not isinstance(secret, kind):
            wanted = kind.model_fields["type"].annotation
            message = f"no secret {name!r} of type {getattr(wanted, '__args__', ('?',))[0]} here"
            raise job_error(ErrorCode.INVALID, message, stage=stage)
        return secret

    def text_for(self, value: str | SecretReference, url: str, *, stage: str) -> str:
        """The text itself, or that of the secret, which must be meant for the page at `url`.

        Raises:
            JobError: INVALID, there is no such secret or it is for other hosts.
        """
        if isinstance(value, str):
            return value
        secret = self.find(value.secret, Text, stage=stage)
        check_host(secret.hosts, url, name=value.secret, stage=stage)
        return secret.value


def check_host(hosts: Iterable[str], url: str, *, name: str, stage: str) -> None:
    """Refuse to use a secret on a host that it is not meant for.

    Raises:
        JobError: INVALID.
    """
    if not is_meant_for(hosts, url):
        message = f"the secret {name!r} is not meant for {without_query(url)}"
        raise job_error(ErrorCode.INVALID, message, stage=stage)


def is_meant_for(hosts: Iterable[str], url: str) -> bool:
    """Whether one of the patterns, such as `*.example.net`, is the URL's host."""
    host = host_of(url)
    return any(fnmatchcase(host, pattern.lower()) for pattern in hosts)


class Redactor:
    """Hides the secrets that one job uses in whatever leaves the worker."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._values)

    def hide(self, values: Iterable[str]) -> None:
        self._values.update(value for value in values if len(value) >= _SHORTEST_REDACTED)

    def text(self, text: str) -> str:
        # The longest first: one secret may be part of another.
        for value in sorted(self._values, key=len, reverse=True):
            text = text.replace(value, REDACTED)
        return text

    def content(self, content: bytes) -> bytes:
        for value in sorted(self._values, key=len, reverse=True):
            content = content.replace(value.encode(), REDACTED.encode())
        return content

    def values(self, values: Any) -> Any:
        """The same JSON value with every text in it redacted."""
        if not self._values:
            return values
        match values:
            case str():
                return self.text(values)
            case dict():
                return {self.text(key): self.values(value) for key, value in values.items()}
            case list() | tuple():
                return [self.values(value) for value in values]
        return values

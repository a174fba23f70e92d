"""What is wrong with a document, told in the words of those who write it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from swarm.errors import Problem


def problems_of(error: ValidationError, *, prefix: str = "") -> Iterator[Problem]:
    """Tell each of pydantic's errors as key, value and what was expected."""
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and _holds_another(detail["loc"], details):
            # pydantic counts the right items only: one wrong action of one is "no action" too.
            continue
        # pydantic names the tag of a union and "[key]" in the path; people know neither.
        path = ".".join(str(part) for part in detail["loc"] if part != "[key]") or "(top level)"
        value = _short(detail["input"])
        kind, message = detail["type"], detail["msg"]
        if kind == "extra_forbidden":
            expected = "no such key; see docs/reference/config.md"
        elif kind == "missing":
            value, expected = "nothing", "a value (this key is required)"
        else:
            expected = re.sub(r"^(Input|Value|String) should ", "it to ", message)
            expected = expected.removeprefix("Value error, ")
        yield Problem(prefix + path, value, expected)


def _holds_another(path: tuple[int | str, ...], details: Iterable[ErrorDetails]) -> bool:
    return any(
        len(detail["loc"]) > len(path) and detail["loc"][: len(path)] == path for detail in details
    )


def _short(value: object) -> str:
    # A URL with a password is refused wherever it stands, but must not be repeated.
    text = re.sub(r"://[^\s/]*@", "://***@", repr(value))
    return text if len(text) <= 80 else text[:77] + "..."

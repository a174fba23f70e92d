"""Reads variables one by one and collects what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from swarm.errors import ConfigError, Problem
from swarm.status import MOST_PLACES

_T = TypeVar("_T")
_ON = frozenset({"1", "true", "yes", "on"})
_OFF = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True, slots=True)
class Autoscale:
    """Bounds of Celery's own autoscaler inside one instance, in processes."""

    maximum: int
    minimum: int


class VariableReader:
    """Over one environment; `problems` is what was found wrong so far."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[Problem] = []

    def problem(self, variable: str, value: str, expected: str) -> None:
        self.problems.append(Problem(variable, repr(value) if value else "nothing", expected))

    def attempt(self, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except ConfigError as exc:
            self.problems.extend(exc.problems)
            return None

    def integer(
        self, variable: str, *, minimum: int, maximum: int, default: int | None = None
    ) -> int:
        text = self._environ.get(variable, "")
        if not text and default is not None:
            return default
        if re.fullmatch(r"[0-9]{1,9}", text) and minimum <= int(text) <= maximum:
            return int(text)
        self.problem(variable, text, f"a whole number from {minimum} to {maximum}")
        return minimum

    def choice(self, variable: str, allowed: tuple[str, ...], *, default: str) -> str:
        text = self._environ.get(variable, "") or default
        if text.lower() not in allowed:
            self.problem(variable, text, f"one of {', '.join(allowed)}")
            return default
        return text.lower()

    def queues(self, *, default: tuple[str, ...]) -> tuple[str, ...]:
        text = self._environ.get("CELERY_QUEUES", "")
        queues = tuple(queue.strip() for queue in text.split(",")) if text else default
        if "" in queues:
            self.problem("CELERY_QUEUES", text, "queue names separated by single commas")
        return tuple(queue for queue in queues if queue)

    def autoscale(self) -> Autoscale | None:
        text = self._environ.get("CELERY_AUTOSCALE", "")
        if not text:
            return None
        match = re.fullmatch(r"([0-9]{1,3}),([0-9]{1,3})", text.replace(" ", ""))
        if match and 1 <= int(match[2]) <= int(match[1]) <= MOST_PLACES:
            return Autoscale(maximum=int(match[1]), minimum=int(match[2]))
        self.problem(
            "CELERY_AUTOSCALE",
            text,
            f'two whole numbers "max,min" with 1 <= min <= max <= {MOST_PLACES}',
        )
        return None

    def boolean(self, variable: str, text: str) -> bool:
        """A switch that is off unless it is turned on."""
        if text.strip().lower() not in _ON | _OFF:
            self.problem(variable, text, "true or false")
        return text.strip().lower() in _ON

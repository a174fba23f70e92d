"""The list of upstream's tests that do not apply: one a line, with the reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

LIST = Path(__file__).with_name("not-applicable.txt")

#: Whose delivery the tests run over: ours, or kombu's and Celery's own for comparison.
Delivery = Literal["ours", "stock"]
DELIVERIES: tuple[Delivery, ...] = get_args(Delivery)
_SCOPES: dict[str, tuple[Delivery, ...]] = {
    "ours": ("ours",),
    "stock": ("stock",),
    "both": DELIVERIES,
    "either": DELIVERIES,
}
_LINE = re.compile(r"(?P<scope>\S+)\s+(?P<pattern>\S+)\s+# (?P<reason>\S.*)")


@dataclass(frozen=True, slots=True)
class Entry:
    """A pattern of test ids (`*` stands for any text) that are expected not to pass.

    `may_pass` is for what upstream itself knows to be a matter of chance.
    """

    pattern: str
    reason: str
    deliveries: tuple[Delivery, ...]
    may_pass: bool = False

    def matches(self, test: str) -> bool:
        words = self.pattern.split("*")
        return re.fullmatch(".*".join(map(re.escape, words)), test, re.DOTALL) is not None


def read_list(delivery: Delivery, text: str | None = None) -> list[Entry]:
    """The entries for this delivery.

    Raises:
        ValueError: a line is none.
    """
    entries = []
    for line in (LIST.read_text(encoding="utf-8") if text is None else text).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None or match["scope"] not in _SCOPES:
            raise ValueError(f"{LIST.name}: expected '{'|'.join(_SCOPES)} TEST # REASON': {line}")
        scope = match["scope"]
        entries.append(
            Entry(match["pattern"], match["reason"], _SCOPES[scope], may_pass=scope == "either")
        )
    return [entry for entry in entries if delivery in entry.deliveries]


def find(entries: list[Entry], test: str) -> Entry | None:
    return next((entry for entry in entries if entry.matches(test)), None)

"""Durations as people write them: `90s`, `30m`, `1h30m`, `2d`."""

from __future__ import annotations

import re
from datetime import timedelta

_PARTS = re.compile(
    r"(?:(?P<days>[0-9]{1,3})d)?(?:(?P<hours>[0-9]{1,4})h)?"
    r"(?:(?P<minutes>[0-9]{1,5})m)?(?:(?P<seconds>[0-9]{1,7})s)?"
)


def parse_duration(text: str) -> timedelta:
    """`1h30m` -> 90 minutes; from days to seconds, in this order.

    Raises:
        ValueError: it is none, or of no length.
    """
    parts = _PARTS.fullmatch(text)
    duration = timedelta(
        **{unit: int(count) for unit, count in parts.groupdict().items() if count}
        if parts is not None
        else {}
    )
    if not duration:
        raise ValueError("a duration such as 30m, 10h or 1h30m, of the units d, h, m and s")
    return duration

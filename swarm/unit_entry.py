"""What a host tells of its instances, one entry each: `swarm-unitctl list` and `watch` alike.

Standard library only, as all that `swarm-unitctl` imports.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

PROTOCOL_VERSION = 1
UNIT_PATTERN = "celery-*@*.service"

_UNIT = re.compile(r"celery-(?P<pool>[a-z][a-z0-9-]{0,31})@(?P<number>[1-9][0-9]?)\.service")


def instance_of(unit: str) -> tuple[str, int] | None:
    """`celery-browser@3.service` -> ("browser", 3); None for what is no instance."""
    named = _UNIT.fullmatch(unit)
    return None if named is None else (named["pool"], int(named["number"]))


def own_word(document: Any, entry: Mapping[str, Any]) -> Any:
    """The instance's own word as it is; None when it is none, or of an earlier process."""
    if not isinstance(document, dict) or document.get("pid") != entry["main_pid"]:
        return None
    return document


def pressures() -> dict[str, float]:
    """How much of the last 10 s something waited, in percent, as `memory_pressure`, `cpu_pressure`.

    What the kernel does not tell is left out: it may be built or booted without (psi=0).
    """
    found = {}
    for resource in ("memory", "cpu"):
        try:
            with open(f"/proc/pressure/{resource}", encoding="ascii") as file:  # noqa: PTH123
                # some avg10=0.12 avg60=...
                found[f"{resource}_pressure"] = float(file.readline().split()[1].partition("=")[2])
        except (OSError, ValueError, IndexError):
            continue
    return found


def memory_available_mb() -> int | None:
    """What the kernel could give without swapping."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - pathlib costs memory
            lines: Iterable[str] = file.readlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return None

"""Whether an instance has room for another task, by the limits of its unit's cgroup.

A unit at its memory limit is slowed down by the kernel or loses a process, and one at its limit of
tasks cannot start a renderer: whoever is near takes no new work until it is clearly below again.
Only the second version of cgroups is read, which Debian's systemd uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
#: How far below the mark, as a share of the limit, work is taken again.
_CLEARANCE = 0.05
#: Memory that the kernel drops when somebody needs it, and that is no sign of want.
_DROPPABLE = frozenset({"inactive_file", "active_file", "slab_reclaimable"})


@dataclass(frozen=True, slots=True)
class Use:
    """Of one resource: what is used, and the limit; memory in bytes."""

    resource: str
    used: int
    limit: int

    @property
    def share(self) -> float:
        return self.used / self.limit

    def __str__(self) -> str:
        limit = f"{self.limit / 2**30:.1f} GiB" if self.resource == "memory" else str(self.limit)
        return f"{self.resource} {self.share * 100:.0f} % of {limit}"


class Load:
    """Looks at a cgroup; `reason` says why nothing more is to be taken."""

    def __init__(self, directory: Path | None, *, memory_share: float, pids_share: float) -> None:
        self._directory = directory
        self._shares = {"memory": memory_share, "pids": pids_share}
        self._paused: frozenset[str] = frozenset()
        self.uses: tuple[Use, ...] = ()

    @property
    def is_paused(self) -> bool:
        return bool(self._paused)

    def look(self) -> None:
        """Read the cgroup; what has no limit, or cannot be read, is no reason to pause."""
        if self._directory is None:
            return
        found = (_memory(self._directory), _pids(self._directory))
        self.uses = tuple(use for use in found if use is not None)
        self._paused = frozenset(use.resource for use in self.uses if self._is_too_high(use))

    @property
    def reason(self) -> str | None:
        """Why it is paused: "memory 92 % of 1.5 GiB"; None while it is not."""
        return ", ".join(str(use) for use in self.uses if use.resource in self._paused) or None

    def _is_too_high(self, use: Use) -> bool:
        clearance = _CLEARANCE if use.resource in self._paused else 0.0
        return use.share > self._shares[use.resource] - clearance


def own_cgroup(proc: Path = Path("/proc/self/cgroup"), root: Path = _ROOT) -> Path | None:
    """The directory of this process's cgroup; None without the second version of cgroups."""
    try:
        lines = proc.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::/"):
            directory = root / line.removeprefix("0::/")
            return directory if (directory / "cgroup.procs").exists() else None
    return None


def _memory(directory: Path) -> Use | None:
    limits = (_number(directory / "memory.high"), _number(directory / "memory.max"))
    limit = min((limit for limit in limits if limit), default=None)
    used = _number(directory / "memory.current")
    if limit is None or used is None:
        return None
    return Use("memory", max(0, used - _droppable(directory)), limit)


def _droppable(directory: Path) -> int:
    try:
        lines = (directory / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    pairs = (line.partition(" ") for line in lines)
    return sum(int(number) for name, _, number in pairs if name in _DROPPABLE)


def _pids(directory: Path) -> Use | None:
    limit, used = _number(directory / "pids.max"), _number(directory / "pids.current")
    return Use("pids", used, limit) if limit and used is not None else None


def _number(path: Path) -> int | None:
    """None for "max", and for what is not there."""
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None

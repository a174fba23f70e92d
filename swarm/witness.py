"""What a unit's cgroup holds: whether it works, by another's word than the worker's.

Chromium gives each open page a renderer, a process of its own, and has none while no page is open:
`tests/integration/test_witness.py` holds it to that. Of other tasks the processes' names tell
nothing, and their processor time only of those that compute. Standard library only, and its lighter
modules, as `swarm.unitctl`, which runs as a user who may read this much of any process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

#: Where the cgroups of units are: of the second version, of both (hybrid), of the first.
ROOTS = tuple(Path("/sys/fs/cgroup", hierarchy) for hierarchy in ("", "unified", "systemd"))
_PROC = Path("/proc")
#: What reading fails with when a process or a cgroup ends meanwhile.
_ENDED = (FileNotFoundError, ProcessLookupError)
_TICKS = os.sysconf("SC_CLK_TCK")


class Witness(NamedTuple):
    """A unit's processes at one moment."""

    processes: int
    renderers: int
    """Processes that show a page of Chromium's."""
    cpu_s: float
    """Seconds of processor time that they, and what they waited for, have used so far."""


def look(
    control_group: str,
    main_pid: int,
    *,
    roots: tuple[Path, ...] | None = None,
    proc: Path = _PROC,
) -> Witness | None:
    """What runs in a unit's cgroup and below it.

    `control_group` and `main_pid` as systemd tells them. None when not all of it can be seen, which
    is not the same as empty.
    """
    try:
        processes = {
            pid: process
            for pid in _pids(control_group, ROOTS if roots is None else roots)
            if (process := _read(proc / str(pid))) is not None
        }
    except PermissionError:
        return None
    # Where other users' processes are hidden, they seem to have ended, the main one too.
    if main_pid not in processes:
        return None
    return Witness(
        processes=len(processes),
        renderers=sum(is_renderer for is_renderer, _ in processes.values()),
        cpu_s=round(sum(ticks for _, ticks in processes.values()) / _TICKS, 2),
    )


def _pids(control_group: str, roots: tuple[Path, ...]) -> Iterator[int]:
    if not control_group:
        return
    for root in roots:
        directory = root / control_group.removeprefix("/")
        if (directory / "cgroup.procs").exists():
            for procs in directory.rglob("cgroup.procs"):
                with suppress(*_ENDED):
                    yield from map(int, procs.read_text(encoding="ascii").split())
            return


def _read(process: Path) -> tuple[bool, int] | None:
    """Whether it shows a page, and its clock ticks; None for one that has ended.

    Raises:
        PermissionError: it is not to be seen.
    """
    try:
        words = (process / "cmdline").read_bytes().replace(b"\0", b" ").split()
        # The name in parentheses may hold anything (proc(5)).
        fields = (process / "stat").read_bytes().rpartition(b") ")[2].split()
    except _ENDED:
        return None
    return b"--type=renderer" in words, sum(map(int, fields[11:15]))

"""Process trees of browsers and their drivers: how much they use, how they end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
#: Directories of engines are called by the process that owns them and when it started.
_PREFIX = "swarm-engine-"


@dataclass(frozen=True, slots=True)
class TreeUse:
    """Memory of a process and its descendants, in bytes that they share with nobody."""

    total: int
    largest: int
    largest_pid: int


def tree_use(root: psutil.Process) -> TreeUse:
    """What a tree uses now; zeros when it is gone.

    Counts resident minus shared pages: unlike USS it costs one short read a process.
    """
    total = largest = largest_pid = 0
    for process in _with_descendants(root):
        used = private_bytes(process.pid)
        total += used
        if used > largest and process.pid != root.pid:
            largest, largest_pid = used, process.pid
    return TreeUse(total, largest, largest_pid)


def kill_tree(root: psutil.Process) -> int:
    """Kill a process with all its descendants; how many there were.

    It is stopped first: so it starts no more of them, and tells us nothing while they are looked
    for, which under a flood of events takes seconds.
    """
    with suppress(psutil.Error):
        root.suspend()
    return _kill(_with_descendants(root))


def child_processes() -> set[psutil.Process]:
    """The direct children of this process."""
    return set(psutil.Process().children())


def make_directory(parent: Path) -> Path:
    """A directory of this process's own, for all that its browsers write.

    Raises:
        OSError: there is no place for it.
    """
    me = psutil.Process()
    directory = parent / f"{_PREFIX}{me.pid}-{int(me.create_time() * 100)}"
    directory.mkdir(mode=0o700, parents=True)
    return directory


def sweep(parent: Path) -> int:
    """Kill what engines left that are no more, and remove their directories.

    A browser outlives an engine that was killed only when it, or its driver, hangs.
    Returns the number of processes killed.
    """
    killed = 0
    for directory in parent.glob(f"{_PREFIX}*"):
        if _owner_lives(directory.name):
            continue
        orphans = [process for process in psutil.process_iter() if _names(process, directory)]
        for orphan in orphans:
            killed += kill_tree(orphan)
        shutil.rmtree(directory, ignore_errors=True)
    return killed


def _owner_lives(name: str) -> bool:
    pid, _, started = name.removeprefix(_PREFIX).partition("-")
    try:
        return str(int(psutil.Process(int(pid)).create_time() * 100)) == started
    except (psutil.Error, ValueError):
        return False


def _names(process: psutil.Process, directory: Path) -> bool:
    """Whether its command line or its environment names the directory."""
    proc = Path("/proc") / str(process.pid)
    needle = os.fsencode(directory)
    for name in ("cmdline", "environ"):
        try:
            if needle in (proc / name).read_bytes():
                return True
        except OSError:
            continue
    return False


def _with_descendants(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(processes: Iterable[psutil.Process]) -> int:
    killed = list(processes)
    for process in killed:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return len(killed)


def private_bytes(pid: int) -> int:
    """Memory of a process that it shares with nobody; 0 when it is gone."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return 0
    return max(0, int(resident) - int(shared)) * _PAGE_BYTES

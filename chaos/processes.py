"""The processes of the lab's hosts, as this machine sees them: killing needs no way into a host."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_UNIT = re.compile(r"/([^/\n]+\.service)(?:/|\n|$)")


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a unit."""

    pid: int
    parent: int
    command: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A running unit and its processes."""

    host: str
    name: str
    processes: tuple[Process, ...]

    def __str__(self) -> str:
        return f"{self.name} on {self.host}"

    @property
    def main(self) -> Process | None:
        """The one that systemd started."""
        own = {process.pid for process in self.processes}
        return next((each for each in self.processes if each.parent not in own), None)

    @property
    def children(self) -> tuple[Process, ...]:
        """Celery's pool processes: children of the main process that run the same program."""
        main = self.main
        if main is None:
            return ()
        return tuple(
            each
            for each in self.processes
            if each.parent == main.pid and each.command == main.command
        )

    @property
    def browsers(self) -> tuple[Process, ...]:
        """Chromium's main processes."""
        return tuple(
            each
            for each in self.processes
            if "--remote-debugging-pipe" in each.command
            and "--type=" not in each.command
            and not each.command.startswith("/bin/sh")
        )

    def send_signal(
        self, number: signal.Signals, processes: Iterable[Process] | None = None
    ) -> None:
        """To all of them, or to these; one that is gone already is passed over."""
        for process in self.processes if processes is None else processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def find_units(host: str, container_id: str) -> dict[str, Unit]:
    """Every unit of a host that has processes."""
    found: dict[str, list[Process]] = {}
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            group = _systemd_group((directory / "cgroup").read_text("utf-8"))
            if container_id not in group or (unit := _UNIT.search(group)) is None:
                continue
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ")
            stat = (directory / "stat").read_text("utf-8", errors="replace")
        except OSError:  # it ended meanwhile
            continue
        state, parent = stat.rpartition(") ")[2].split()[:2]
        if state != "Z":
            process = Process(int(directory.name), int(parent), command.decode("utf-8", "replace"))
            found.setdefault(unit[1], []).append(process)
    return {name: Unit(host, name, tuple(processes)) for name, processes in found.items()}


def _systemd_group(text: str) -> str:
    """systemd's own hierarchy: that of version 2, or the one that has its name."""
    lines = text.splitlines()
    named = [line for line in lines if ":name=systemd:" in line]
    return (named or [line for line in lines if line.startswith("0::")] or [""])[0] + "\n"

"""The producers of a run, on two hosts: this machine, and in the network of one of the workers."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from chaos.two_brokers.calls import Call, read_calls
from chaos.two_brokers.faults import CUT_HOST
from chaos.two_brokers.stand import Stand
from lab.hosts import REPOSITORY

#: Where each producer is; nothing for this machine.
HOSTS = ("", CUT_HOST, "", CUT_HOST)
EVERYWHERE = frozenset(range(len(HOSTS)))
ON_THE_CUT_HOST = frozenset(share for share in EVERYWHERE if HOSTS[share] == CUT_HOST)
#: More than arrive in the longest run.
_TASKS = 4000
#: Seconds from their start to the first job.
_IMPORTS_S = 6.0


@dataclass(slots=True)
class Producers:
    """Their processes and their logs."""

    directory: Path
    seed: int
    run: str
    begun: float = field(default_factory=lambda: time.monotonic() + _IMPORTS_S)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, stand: Stand) -> None:
        for share, host in enumerate(HOSTS):
            options = {
                "seed": self.seed,
                "tasks": _TASKS,
                "run": self.run,
                "share": share,
                "of": len(HOSTS),
                "begun": self.begun,
                "calls": self._calls(share),
            }
            command = [*stand.prefix(host), sys.executable, "-m", "chaos.two_brokers.producer"]
            for name, value in options.items():
                command += [f"--{name}", str(value)]
            with self._log(share).open("ab") as log:
                process = subprocess.Popen(
                    command,
                    cwd=REPOSITORY,
                    env=dict(stand.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            self._processes.append(process)

    def calls(self) -> list[Call]:
        """All that they have said so far."""
        return [call for share in EVERYWHERE for call in read_calls(self._calls(share))]

    def finish(self) -> list[str]:
        """Have them end after what they are at; what they died of."""
        (self.directory / "stop").touch()
        told = []
        for share, process in enumerate(self._processes):
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                told.append(f"producer {share} does not end")
            else:
                if code:
                    told.append(f"producer {share} died: {self._log(share).read_text()[-2000:]}")
        return told

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _calls(self, share: int) -> Path:
        return self.directory / f"calls-{share}"

    def _log(self, share: int) -> Path:
        return self.directory / f"producer-{share}.log"

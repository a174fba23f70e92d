"""The producers of a run: started, killed while they submit, started again."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from chaos.submissions import Entry, read_submissions
from lab.hosts import REPOSITORY

COUNT = 3
#: Seconds to wait for a moment in which a producer is submitting.
_PATIENCE_S = 5.0


@dataclass(slots=True)
class Producers:
    """Their processes and their logs."""

    directory: Path
    seed: int
    tasks: int
    run: str
    seconds: float
    """The pace: all is submitted in so much time."""
    begun: float = field(default_factory=time.time)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        self._processes = [self._start(share) for share in range(COUNT)]

    def submissions(self, share: int) -> Path:
        return self.directory / f"producer-{share}"

    def entries(self) -> list[Entry]:
        return [
            entry for share in range(COUNT) for entry in read_submissions(self.submissions(share))
        ]

    def kill(self, chance: float) -> str:
        """Kill one between its first line on a job and its last; another goes on with its share."""
        share = int(chance * COUNT)
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            entries = read_submissions(self.submissions(share))
            if entries and entries[-1].status == "sending":
                break
            time.sleep(0.0005)
        process = self._processes[share]
        process.kill()
        process.wait()
        self._processes[share] = self._start(share)
        entries = read_submissions(self.submissions(share))
        return f"producer {share}, at its job {entries[-1].job if entries else 0}"

    def running(self) -> int:
        return sum(process.poll() is None for process in self._processes)

    def failures(self) -> list[int]:
        """Exit codes of those that ended by an error of their own."""
        return [code for process in self._processes if (code := process.poll())]

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    def _start(self, share: int) -> subprocess.Popen[bytes]:
        options = {
            "seed": self.seed,
            "tasks": self.tasks,
            "run": self.run,
            "share": share,
            "of": COUNT,
            "seconds": self.seconds,
            "begun": self.begun,
            "submissions": self.submissions(share),
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        with (self.directory / f"producer-{share}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "chaos.producer", *words],
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

"""Who knows nothing but ids, and gets the results: a process of its own.

Reads `<id> <seconds>` from its standard input, one a line, and writes what came of each to a file.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from chaos.submissions import LineLog, read_lines
from lab.hosts import REPOSITORY

#: Results that are waited for at a time.
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one handle."""

    id: str
    state: str
    """Empty if there was no result in time."""
    seconds: float
    at: float
    """When it came, or did not; monotonic."""
    error: str = ""


class Handles:
    """The process, as who asks it sees it."""

    def __init__(self, answers: Path, prefix: Sequence[str], environ: Mapping[str, str]) -> None:
        self._path = answers
        self.asked: list[str] = []
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "chaos.two_brokers.handles", str(answers)],
            cwd=REPOSITORY,
            env=dict(environ),
            stdin=subprocess.PIPE,
            text=True,
        )

    def ask(self, task_id: str, timeout_s: float) -> None:
        """Have it get this result."""
        self.asked.append(task_id)
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.write(f"{task_id} {timeout_s}\n")
        self._process.stdin.flush()

    def finish(self, timeout_s: float) -> list[Answer]:
        """What came of all that was asked."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.close()
        self._process.wait(timeout_s)
        return [Answer(**row) for row in read_lines(self._path)]

    def stop(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()


def main(path: Path) -> int:
    """Answer until the input ends."""
    log = LineLog(path)
    with ThreadPoolExecutor(_THREADS) as threads:
        for line in sys.stdin:
            task_id, timeout_s = line.split()
            threads.submit(_get, log, task_id, float(timeout_s))
    log.close()
    return 0


def _get(log: LineLog, task_id: str, timeout_s: float) -> None:
    from swarm.celery_app import app  # noqa: PLC0415 - of this process alone, with its settings

    begun, state, error = time.monotonic(), "", ""
    try:
        result = app.AsyncResult(task_id)
        result.get(timeout=timeout_s, propagate=False)
        state = str(result.state)
    except Exception as exc:  # noqa: BLE001 - told, and the run fails for it
        error = repr(exc)[:300]
    now = time.monotonic()
    log.write_line(asdict(Answer(task_id, state, now - begun, now, error)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

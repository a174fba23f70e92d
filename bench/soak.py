"""Thousands of tasks on one instance, browsers retired on the way: `make bench-soak`.

One instance with threads does the work of `bench.throughput` over and over. Its tree's memory (PSS)
is read after each batch, when nothing runs. At the end the instance is stopped, and what it leaves
behind is counted: processes, and files in its TMPDIR.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import mean

import psutil

from bench import browsers, processes, unprivileged
from bench.page import page_server
from bench.trees import pss_mb

_AT_ONCE = 8
_BATCH = 50
#: Seconds for pages to close after their results are in.
_REST_S = 0.5
#: Seconds for processes to end after the instance.
_END_S = 2.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=3000)
    unprivileged.add_argument(parser)
    options = parser.parse_args()
    unprivileged.leave_root(options)
    with tempfile.TemporaryDirectory(prefix="swarm-bench-") as name:
        scratch = Path(name, "tmp")
        scratch.mkdir()
        # What the instance, its driver and its browsers write.
        os.environ["TMPDIR"] = str(scratch)
        figures = soak(Path(name), options.tasks)
        figures["leftover_files"] = len(list(scratch.rglob("*")))
    print(json.dumps({"sandbox": unprivileged.can_sandbox(), **figures}))
    return 0


def soak(directory: Path, tasks: int) -> dict[str, float]:
    """All tasks; what became of them, of memory and of processes."""
    before = set(psutil.Process().children(recursive=True))
    memory: list[float] = []
    failures: list[str] = []
    done = 0
    begun = time.monotonic()
    with page_server() as url, processes.redis_server(directory / "redis") as redis:
        place = directory / "threads"
        with browsers.instance(
            "threads", _AT_ONCE, url, redis_url=redis.url, directory=place
        ) as instance:
            started = set(psutil.Process().children(recursive=True)) - before
            while done < tasks:
                batch = min(_BATCH, tasks - done)
                failures += list(instance.do(batch).failures)
                done += batch
                time.sleep(_REST_S)
                memory.append(pss_mb(instance.pid))
                if len(memory) % 10 == 0:
                    print(f"{done} tasks, {len(failures)} failed, {memory[-1]:.0f} MB", flush=True)
                started |= set(psutil.Process().children(recursive=True)) - before
    seconds = time.monotonic() - begun
    for reason in failures[:10]:
        print(f"failed: {reason}")
    quarter = max(1, len(memory) // 4)
    return {
        "tasks": done,
        "seconds": round(seconds, 1),
        "failures": len(failures),
        "orphans": len(_orphans(started)),
        "memory_first_quarter_mb": round(mean(memory[:quarter]), 1),
        "memory_last_quarter_mb": round(mean(memory[-quarter:]), 1),
    }


def _orphans(started: set[psutil.Process]) -> list[psutil.Process]:
    """Those that do not end; what only waits for its parent to take note has ended."""
    orphans = []
    for process in psutil.wait_procs(started, timeout=_END_S)[1]:
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                print(f"left behind: {process}")
                orphans.append(process)
    return orphans


if __name__ == "__main__":
    sys.exit(main())

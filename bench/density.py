"""What a task takes of memory while others run beside it: `make bench-density`.

The whole process tree (worker, driver, every process of Chromium) at its peak, as PSS, divided by
the tasks at a time: an instance with threads, one with prefork, stock Celery with a browser for
each task, and a raw loop of async Playwright, each doing the work of `bench.throughput`. They run
one after the other, each alone.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from bench import browsers, processes, unprivileged
from bench.browsers import Contestant
from bench.page import page_server
from bench.trees import PeakMemory

_AT_ONCE = (1, 4, 8)

Start = Callable[[int], AbstractContextManager[Contestant]]


def starters(directory: Path, url: str, redis_url: str) -> dict[str, Start]:
    """How each is started, with so many tasks at a time."""

    def place(name: str, at_once: int) -> Path:
        return directory / f"{name}-{at_once}"

    def ours(mode: browsers.Mode, at_once: int) -> AbstractContextManager[Contestant]:
        return browsers.instance(
            mode, at_once, url, redis_url=redis_url, directory=place(mode, at_once)
        )

    return {
        "raw": lambda at_once: browsers.raw(at_once, url, directory=place("raw", at_once)),
        "threads": partial(ours, "threads"),
        "prefork": partial(ours, "prefork"),
        "stock": lambda at_once: browsers.stock(
            at_once, url, redis_url=redis_url, directory=place("stock", at_once)
        ),
    }


def peak_mb(start: Start, at_once: int, waves: int) -> float:
    """The tree's largest memory while it does so many times as many jobs as it can do at a time."""
    with start(at_once) as contestant:
        contestant.run(at_once)
        with PeakMemory(contestant.pid) as peak:
            contestant.run(waves * at_once)
    return peak.mb


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--waves", type=int, default=6, help="jobs, as a multiple of those at once")
    parser.add_argument("--at-once", type=int, nargs="+", default=_AT_ONCE)
    unprivileged.add_argument(parser)
    options = parser.parse_args()
    unprivileged.leave_root(options)
    taken: dict[str, dict[int, float]] = {}
    with (
        tempfile.TemporaryDirectory(prefix="swarm-bench-") as name,
        page_server() as url,
        processes.redis_server(Path(name, "redis")) as redis,
    ):
        everybody = starters(Path(name), url, redis.url)
        for at_once in options.at_once:
            for who, start in everybody.items():
                mb = peak_mb(start, at_once, options.waves)
                taken.setdefault(who, {})[at_once] = round(mb / at_once, 1)
                print(f"{who}, {at_once} at once: {mb:.0f} MB", flush=True)
    most = max(options.at_once)
    print(
        json.dumps(
            {
                "sandbox": unprivileged.can_sandbox(),
                "mb_per_task": taken,
                "threads_to_raw": round(taken["threads"][most] / taken["raw"][most], 3),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Those who open pages: our instances by pool mode, stock Celery, a raw loop, Crawlee."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from bench import processes
from bench.page import CHROMIUM, ELEMENTS, payload
from bench.processes import HOST, REPOSITORY, TIMEOUT_S
from bench.producer import Producer, producer
from bench.unprivileged import can_sandbox
from swarm.browse.chromium import ARGUMENTS
from tests.loopback import free_port_base

Mode = Literal["prefork", "threads", "solo"]

_CRAWLEE = REPOSITORY / ".cache" / "crawlee" / "bin" / "python"


@dataclass(frozen=True)
class Done:
    """How long jobs took, and what those that failed have failed with."""

    seconds: float
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contestant:
    """Somebody who does jobs, so many when asked."""

    pid: int
    do: Callable[[int], Done]

    def run(self, jobs: int) -> float:
        """Do them; the seconds that they took.

        Raises:
            RuntimeError: not all of them ended well.
        """
        done = self.do(jobs)
        if done.failures:
            raise RuntimeError(f"{len(done.failures)} of {jobs} failed: {done.failures[0]}")
        return done.seconds


@contextmanager
def instance(
    mode: Mode,
    concurrency: int,
    url: str,
    *,
    redis_url: str,
    directory: Path,
    proxy: str | None = None,
) -> Iterator[Contestant]:
    """One `swarm worker` with a pool and a queue of its own, and a producer for it."""
    directory.mkdir()
    pool = directory.name
    environ = {
        **_configure(pool, concurrency, directory, proxy),
        "REDIS_URL": redis_url,
        "SWARM_POOL": pool,
        "SWARM_INSTANCE": "1",
        "CELERY_POOL": mode,
        "CELERY_CONCURRENCY": str(concurrency),
        "CELERY_LOGLEVEL": "warning",
    }
    words = [sys.executable, "-m", "bench.instance", "--events", "off"]
    with (
        processes.told_ready(words, environ, directory) as process,
        producer("bench.instance", "app", environ) as ours,
    ):
        yield Contestant(process.pid, partial(_submit, ours, "browser.run", [payload(url)]))


def _submit(submitter: Producer, task: str, arguments: Sequence[Any], jobs: int) -> Done:
    """From before the first is submitted until all are known to have ended."""
    begun = time.monotonic()
    submitter.submit(task, jobs, *arguments)
    failures = submitter.failures()
    return Done(time.monotonic() - begun, tuple(failures))


def _configure(pool: str, concurrency: int, directory: Path, proxy: str | None) -> dict[str, str]:
    """A config.yaml of one pool, and the variables that say so."""
    document = {
        "pools": {
            pool: {
                "task_type": "browser",
                "queues": [pool],
                "concurrency": concurrency,
                "metrics_port_base": free_port_base(),
            }
        },
        "browser": {
            "executable": CHROMIUM,
            "sandbox": can_sandbox(),
            "artifacts_directory": str(directory),
            "proxy": proxy,
        },
        "worker": {"status_directory": str(directory)},
    }
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "SWARM_CONFIG": str(config),
        "SWARM_HOST": HOST,
    }


@contextmanager
def stock(concurrency: int, url: str, *, redis_url: str, directory: Path) -> Iterator[Contestant]:
    """Celery as it comes, with a browser for each task."""
    directory.mkdir()
    arguments = [url, str(directory / "picture.png"), list(ARGUMENTS)]
    with (
        processes.stock_worker(
            redis_url, directory / "log", app="browsing", concurrency=concurrency
        ) as process,
        producer("bench.stock", "browsing", processes.stock_environ(redis_url)) as others,
    ):
        yield Contestant(process.pid, partial(_submit, others, "browser.picture", arguments))


@contextmanager
def raw(at_once: int, url: str, *, directory: Path) -> Iterator[Contestant]:
    """Playwright alone."""
    directory.mkdir()
    words = [sys.executable, "-m", "bench.raw", url, str(directory), f"--at-once={at_once}"]
    with _asked(words) as contestant:
        yield contestant


@contextmanager
def variant(name: str, at_once: int, url: str, directory: Path) -> Iterator[Contestant]:
    """One of `bench.variants`."""
    directory.mkdir()
    words = [sys.executable, "-m", "bench.ablated", name, url, str(directory)]
    with _asked([*words, f"--at-once={at_once}"]) as contestant:
        yield contestant


@contextmanager
def crawlee(at_once: int, url: str, *, directory: Path, lean: bool = False) -> Iterator[Contestant]:
    """Crawlee for Python as it comes; `lean` without the disguise that it gives each page.

    Raises:
        RuntimeError: it is not installed.
    """
    if not _CRAWLEE.exists():
        raise RuntimeError(f"{_CRAWLEE} is missing: `make bench-throughput` installs it")
    directory.mkdir()
    words = [str(_CRAWLEE), "bench/crawling.py", url, str(directory), f"--at-once={at_once}"]
    words += [f"--elements={ELEMENTS}", f"--chromium={CHROMIUM}"]
    words.append(f"--arguments={' '.join(ARGUMENTS)}")
    words += ["--lean"] if lean else []
    with _asked(words) as contestant:
        yield contestant


@contextmanager
def _asked(words: Sequence[str]) -> Iterator[Contestant]:
    """A program that answers a line with a number of jobs by a line with seconds."""
    with subprocess.Popen(
        words, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("no pipes")
        asking, answers = process.stdin, process.stdout
        if answers.readline() != "ready\n":
            raise RuntimeError(f"{words[:3]} did not start")

        def do(jobs: int) -> Done:
            asking.write(f"{jobs}\n")
            asking.flush()
            answer = answers.readline()
            if not answer:
                raise RuntimeError(f"{words[:3]} ended instead of doing {jobs} jobs")
            return Done(float(answer))

        yield Contestant(process.pid, do)
        asking.close()
        process.wait(TIMEOUT_S)

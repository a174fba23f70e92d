"""A producer that lives on: a process of its own that submits when it is asked to.

Importing swarm puts its transport in the place of kombu's for the whole process, so ours and
stock's producers cannot share one. Both ends of the conversation are here: a line of JSON each way.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bench.processes import REPOSITORY, TIMEOUT_S


class Producer:
    """The asking end."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def singles(self, count: int = 1) -> list[float]:
        """Submit `clock` and wait for it; milliseconds from before that to the body's begin."""
        latencies: list[float] = self._ask("singles", count)
        return latencies

    def pages(self, count: int = 1) -> None:
        """Ours only: analysis tasks through `swarm.client`, one after the other."""
        self._ask("pages", count)

    def submit(self, task: str, count: int, *arguments: Any) -> None:
        """Submit without waiting."""
        self._ask("submit", task, count, *arguments)

    def wait(self) -> list[Any]:
        """What all that was submitted has returned."""
        values: list[Any] = self._ask("wait")
        return values

    def failures(self) -> list[str]:
        """What all that was submitted and failed has failed with."""
        reasons: list[str] = self._ask("failures")
        return reasons

    def _ask(self, verb: str, *arguments: Any) -> Any:
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the producer has no pipes")
        self._process.stdin.write(json.dumps([verb, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the producer ended while it was asked to {verb}")
        return json.loads(answer)


@contextmanager
def producer(module: str, app: str, environ: Mapping[str, str]) -> Iterator[Producer]:
    """Started, with the app of that name in that module; ended by the end of its input."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.producer", module, app],
        env=environ,
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Producer(process)


class _Submitter:
    """The answering end."""

    def __init__(self, module: Any, app: Any) -> None:
        self._module = module
        self._app = app
        # A worker does this when it starts; a producer needs the tasks by name only here.
        app.loader.import_default_modules()
        self._handles: list[Any] = []

    def singles(self, count: int) -> list[float]:
        clock = self._app.tasks["analysis.clock"]
        latencies = []
        for _ in range(count):
            submitted = time.monotonic()
            begun = clock.delay().get(timeout=TIMEOUT_S)
            latencies.append((begun - submitted) * 1000)
        return latencies

    def pages(self, count: int) -> None:
        for _ in range(count):
            self._module.analyse_a_page(TIMEOUT_S)

    def submit(self, task: str, count: int, *arguments: Any) -> None:
        self._handles += [self._app.tasks[task].delay(*arguments) for _ in range(count)]

    def failures(self) -> list[str]:
        handles, self._handles = self._handles, []
        for handle in handles:
            handle.get(timeout=TIMEOUT_S, propagate=False)
        return [str(handle.result) for handle in handles if handle.failed()]

    def wait(self) -> list[float]:
        handles, self._handles = self._handles, []
        # One process takes them in their order: the others are over when the last one is.
        handles[-1].get(timeout=2 * TIMEOUT_S + len(handles) / 10)
        return [handle.get(timeout=TIMEOUT_S) for handle in handles]


def main(module_name: str, app_name: str) -> None:
    """Answer until the input ends."""
    module = importlib.import_module(module_name)
    submitter = _Submitter(module, getattr(module, app_name))
    for line in sys.stdin:
        verb, *arguments = json.loads(line)
        print(json.dumps(getattr(submitter, verb)(*arguments)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Tasks of the delivery tests. Each run of a body leaves a line in the file $RUNS."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from swarm.celery_app import app


def _ran(word: Any) -> None:
    with open(os.environ["RUNS"], "a", encoding="utf-8") as runs:  # noqa: PTH123
        runs.write(f"{word}\n")


@app.task(name="analysis.add")
def add(x: int, y: int) -> int:
    _ran(f"add {x} {y}")
    return x + y


@app.task(name="analysis.total")
def total(numbers: list[int]) -> int:
    _ran("total")
    return sum(numbers)


@app.task(name="analysis.note")
def note(word: Any, seconds: float = 0.0) -> Any:
    _ran(word)
    time.sleep(seconds)
    return word


@app.task(name="analysis.compute")
def compute(seconds: float) -> None:
    _ran("compute")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


@app.task(name="analysis.silent", ignore_result=True)
def silent(word: str) -> str:
    _ran(word)
    return word


@app.task(name="analysis.fail")
def fail(*args: Any) -> None:
    _ran("fail")
    raise ValueError("as told")


@app.task(name="analysis.exhaust")
def exhaust() -> None:
    _ran("exhaust")
    raise MemoryError("too large")


@app.task(name="analysis.told")
def told(task_id: str) -> None:
    """With one parameter, an errback is a task of its own."""
    _ran(task_id)


@app.task(name="analysis.flaky", bind=True, max_retries=5)
def flaky(self: Any, failures: int, countdown: float, seconds: float = 0.0) -> str:
    _ran(f"flaky {self.request.retries}")
    time.sleep(seconds)
    if self.request.retries < failures:
        raise self.retry(countdown=countdown, exc=ValueError("not yet"))
    return f"after {self.request.retries}"


@app.task(name="analysis.die", bind=True)
def die(self: Any) -> None:
    _ran("die")
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="analysis.soft", soft_time_limit=1, time_limit=10)
def soft() -> str:
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        return "limited"
    return "not limited"


@app.task(name="analysis.hard", soft_time_limit=1, time_limit=2)
def hard() -> None:
    _ran("hard")
    _sleep_on()


def _sleep_on() -> None:
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:
            continue


@app.task(name="analysis.stubborn", soft_time_limit=3, time_limit=4)
def stubborn() -> str:
    """Its first run ends by its time limit."""
    _ran("stubborn")
    if _runs_of("stubborn") == 1:
        _sleep_on()
    return "good"


@app.task(name="analysis.late", soft_time_limit=2, time_limit=30)
def late() -> str:
    _ran("late")
    time.sleep(1)
    return "in time"


@app.task(name="analysis.ignore")
def ignore() -> None:
    _ran("ignore")
    raise Ignore


@app.task(name="analysis.reject", bind=True)
def reject(self: Any, word: str, seconds: float = 0.0) -> bool:
    """Whether it knows that it has come before."""
    _ran(word)
    time.sleep(seconds)
    if _runs_of(word) == 1:
        raise Reject("once more", requeue=True)
    return bool(self.request.delivery_info.get("redelivered"))


def _runs_of(word: str) -> int:
    with open(os.environ["RUNS"], encoding="utf-8") as runs:  # noqa: PTH123
        return runs.read().splitlines().count(word)


@app.task(name="analysis.replace", bind=True)
def replace(self: Any) -> None:
    _ran("replace")
    raise self.replace(add.s(20, 22))


@app.task(name="analysis.spawn")
def spawn() -> str:
    """Its own publishing is part of its body, not of its end."""
    return str(note.delay("spawned").id)


@app.task(name="analysis.huge")
def huge() -> object:
    return object()

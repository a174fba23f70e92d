"""How fast tasks reach their worker: `make bench-dispatch`.

Our app and a stock Celery app that is as careful (acks late, prefetch 1) run the same task, each
on one worker process with events off and a Redis of its own. A round is, for both in turn: a
backlog that waits before the worker starts, single tasks on a waiting worker (one of ours, one of
stock's, and so on), the first task after a long idle wait, SIGTERM on an idle worker. The task's
body tells when it began, on the clock that all processes share.

The last line is one JSON object of medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

from bench import processes
from bench.processes import TIMEOUT_S, Fleet, Process
from bench.producer import Producer, producer

#: Seconds between two single tasks: the worker waits again when the next one comes.
_PAUSE_S = 0.02
#: Seconds of rest after a task before SIGTERM.
_REST_S = 2.0


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int = 5
    backlog: int = 1000
    singles: int = 200
    idle_s: float = 60


QUICK = Plan(rounds=1, backlog=20, singles=10, idle_s=1)


@dataclass(frozen=True)
class Side:
    """One of the two that are compared."""

    #: What its keys begin with.
    prefix: str
    producer: Producer
    start: Callable[[], AbstractContextManager[Process]]


Figures = dict[str, float]


def measure_round(sides: tuple[Side, ...], plan: Plan) -> Figures:
    """Everything once, the sides in turn."""
    figures: Figures = {}
    with ExitStack() as stack:
        workers = {}
        for side in sides:
            side.producer.submit("analysis.clock", plan.backlog)
            workers[side.prefix] = stack.enter_context(side.start())
            figures[f"{side.prefix}tasks_per_s"] = throughput(side.producer.wait())
        latencies: dict[str, list[float]] = {side.prefix: [] for side in sides}
        for _ in range(plan.singles):
            for side in sides:
                latencies[side.prefix] += side.producer.singles()
                time.sleep(_PAUSE_S)
        for side in sides:
            percentiles = quantiles(latencies[side.prefix], n=100, method="inclusive")
            figures[f"{side.prefix}p50_ms"] = percentiles[49]
            figures[f"{side.prefix}p99_ms"] = percentiles[98]
        time.sleep(plan.idle_s)
        for side in sides:
            [figures[f"{side.prefix}after_idle_ms"]] = side.producer.singles()
        time.sleep(_REST_S)
        for side in sides:
            figures[f"{side.prefix}stop_idle_s"] = stop_s(workers[side.prefix])
    return figures


def throughput(begun: list[float]) -> float:
    """Tasks begun a second, from the first to the last; starting the worker is not in it."""
    return (len(begun) - 1) / (max(begun) - min(begun))


def stop_s(worker: Process) -> float:
    """From SIGTERM to the exit."""
    told = time.monotonic()
    worker.terminate()
    worker.wait(TIMEOUT_S)
    return time.monotonic() - told


def make_sides(directory: Path, stack: ExitStack) -> tuple[Side, ...]:
    """Both with their Redis and a producer that lives on."""
    enter = stack.enter_context
    ours = enter(processes.redis_server(directory / "redis")).url
    others = enter(processes.redis_server(directory / "stock-redis")).url
    fleet = Fleet.configure(directory / "fleet")
    log = directory / "stock.log"
    words = ("--without-gossip", "--without-mingle")
    return (
        Side(
            "",
            enter(producer("bench.instance", "app", fleet.environ(ours))),
            lambda: fleet.instance(ours, events="off"),
        ),
        Side(
            "stock_",
            enter(producer("bench.stock", "careful", processes.stock_environ(others))),
            lambda: processes.stock_worker(others, log, *words, app="careful"),
        ),
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle", type=float, help="seconds of the long idle wait")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true", help="whether it works; no figures")
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    plan = replace(plan, idle_s=options.idle or plan.idle_s, rounds=options.rounds or plan.rounds)
    rounds: list[Figures] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swarm-bench-")))
        sides = make_sides(directory, stack)
        for number in range(1, plan.rounds + 1):
            # Whoever goes first finds the machine in another state: take turns.
            ordered = sides if number % 2 else sides[::-1]
            rounds.append(measure_round(ordered, plan))
            told = ", ".join(f"{name} {value:.3g}" for name, value in sorted(rounds[-1].items()))
            print(f"round {number}: {told}", flush=True)
    ratio = median(each["p50_ms"] / each["stock_p50_ms"] for each in rounds)
    medians = {name: round(median(each[name] for each in rounds), 2) for name in rounds[0]}
    worst = max(each["after_idle_ms"] for each in rounds)
    print(
        json.dumps(
            {
                "rounds": plan.rounds,
                "backlog": plan.backlog,
                "singles": plan.singles,
                "idle_s": plan.idle_s,
                **medians,
                "p50_to_stock": round(ratio, 2),
                "after_idle_worst_ms": round(worst, 2),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

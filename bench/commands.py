"""What the swarm asks of its Redis: at rest, and for a task. `make bench-commands`.

Every process reaches Redis through a proxy that counts its requests (bench.proxy). Stock Celery
runs beside it, as it comes: one `celery worker` with one process, and Flower.

At rest: instances, Flower and scaler run, nothing is queued, a window is counted and made an hour.
The window holds every timer's period several times. What Flower and scaler ask because of
further instances would count as the first one's.

For a task: an instance and a producer that lives on, without Flower and scaler; one task after
the other, each waited for, less what the worker asks at rest in that time. The long task's
figure is everything from its submission to its result.

The last line is one JSON object of medians.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench import instance, processes
from bench.counted import CountedRedis, counted_redis, inside_scripts, show, total
from bench.processes import TIMEOUT_S, Fleet, Process
from bench.producer import producer
from bench.proxy import Counts, difference

FIRST, FLOWER, SCALER, PRODUCER = "instance-1", "flower", "scaler", "producer"


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    #: Seconds counted at rest: three of the longest waits for work (240 s), and whole numbers of
    #: the periods of 20, 30, 60 and 120 s, so that none is counted once too often.
    window_s: float = 720
    #: Seconds after the start in which nothing is counted.
    warm_up_s: float = 30
    further_instances: int = 2
    rounds: int = 5
    tasks: int = 50
    one_shots: int = 5
    long_task_s: float = 60


QUICK = Plan(
    window_s=4, warm_up_s=1, further_instances=1, rounds=1, tasks=10, one_shots=1, long_task_s=1
)


@dataclass(frozen=True)
class Rest:
    """What was asked in a window without work, by ours and by stock."""

    seconds: float
    ours: Counts
    stock: Counts

    def per_hour(self, counts: Counts, *parties: str) -> float:
        return sum(counts[party].total() for party in parties) * 3600 / self.seconds

    def figures(self) -> dict[str, float]:
        further = sorted(set(self.ours) - {FIRST, FLOWER, SCALER})
        each_more = self.per_hour(self.ours, *further) / len(further)
        return {
            "idle_per_hour": round(self.per_hour(self.ours, FIRST, FLOWER, SCALER)),
            "idle_per_hour_each_more": round(each_more),
            "stock_idle_per_hour": round(self.per_hour(self.stock, *self.stock)),
        }


def measure_rest(directory: Path, plan: Plan) -> Rest:
    """Count a window in which nothing is submitted."""
    numbers = range(1, plan.further_instances + 2)
    names = {number: f"instance-{number}" for number in numbers}
    with ExitStack() as stack:
        enter = stack.enter_context
        ours = enter(counted_redis(directory / "redis", FLOWER, SCALER, *names.values()))
        others = enter(counted_redis(directory / "stock-redis", FIRST, FLOWER))
        fleet = Fleet.configure(directory / "fleet", instances=len(numbers))
        instances = {
            number: enter(fleet.instance(ours.url(name), number)) for number, name in names.items()
        }
        parties = [
            *instances.values(),
            enter(fleet.flower(ours.url(FLOWER))),
            # Flower's live view needs -E, as our instances have it.
            enter(processes.stock_worker(others.url(FIRST), directory / "stock.log", "-E")),
            enter(processes.stock_flower(others.url(FLOWER), directory / "stock-flower.log")),
            enter(fleet.scaler(ours.url(SCALER), instances)),
        ]
        time.sleep(plan.warm_up_s)
        started = time.monotonic()
        before = ours.proxy.counts(), others.proxy.counts()
        time.sleep(plan.window_s)
        after = ours.proxy.counts(), others.proxy.counts()
        seconds = time.monotonic() - started
        processes.tell_to_stop(parties)
    return Rest(seconds, difference(after[0], before[0]), difference(after[1], before[1]))


class TaskCosts:
    """Counts what tasks ask of Redis, ours and stock's."""

    def __init__(self, directory: Path, plan: Plan, rest: Rest, stack: ExitStack) -> None:
        self._directory = directory
        self._plan = plan
        self._ours = stack.enter_context(counted_redis(directory / "redis", FIRST, PRODUCER))
        self._others = stack.enter_context(
            counted_redis(directory / "stock-redis", FIRST, PRODUCER)
        )
        self._at_rest = rest.ours[FIRST].total() / rest.seconds
        self._stock_at_rest = rest.stock[FIRST].total() / rest.seconds
        self._fleet = Fleet.configure(directory / "fleet")
        self._environ = self._fleet.environ(self._ours.url(PRODUCER))
        stock_environ = processes.stock_environ(self._others.url(PRODUCER))
        enter = stack.enter_context
        self._producer = enter(producer("bench.instance", "app", self._environ))
        self._stock_producer = enter(producer("bench.stock", "defaults", stock_environ))
        self.last: dict[str, Counts] = {}

    def round(self) -> dict[str, float]:
        """Requests for a task, each way once."""
        figures: dict[str, float] = {}
        with self._fleet.instance(self._ours.url(FIRST), events="off"):
            figures["per_task"], figures["inside_scripts_per_task"] = self._count(
                "per_task", self._ours, self._producer.pages, self._at_rest
            )
        with self._fleet.instance(self._ours.url(FIRST), events="on"):
            figures["events_on_per_task"], _ = self._count(
                "events_on_per_task", self._ours, self._producer.pages, self._at_rest
            )
        with self._stock_worker():
            figures["stock_per_task"], _ = self._count(
                "stock_per_task", self._others, self._stock_producer.singles, self._stock_at_rest
            )
        return figures

    def other_ways(self) -> dict[str, float]:
        """What is measured once: producers that live for one task, and a long task."""
        with (
            self._fleet.instance(self._ours.url(FIRST), events="off") as worker,
            self._stock_worker() as stock_worker,
        ):
            one_shot, _ = self._count(
                "one_shot_per_task",
                self._ours,
                self._submit_in_new_processes,
                self._at_rest,
                tasks=self._plan.one_shots,
            )
            figures = {"one_shot_per_task": one_shot, **self._long_task()}
            processes.tell_to_stop([worker, stock_worker])
        return figures

    def _long_task(self) -> dict[str, float]:
        """Everything from its submission to its result, ours and stock's at once."""
        producers = self._producer, self._stock_producer
        for each in producers:
            each.singles()
        time.sleep(1)
        before = self._ours.proxy.counts(), self._others.proxy.counts()
        for each in producers:
            each.submit("analysis.nap", 1, self._plan.long_task_s)
        for each in producers:
            each.wait()
        time.sleep(0.5)
        self.last["long_task"] = difference(self._ours.proxy.counts(), before[0])
        self.last["stock_long_task"] = difference(self._others.proxy.counts(), before[1])
        return {name: total(self.last[name]) for name in ("long_task", "stock_long_task")}

    def _submit_in_new_processes(self, count: int) -> None:
        program = str(Path(sys.executable).with_name("swarm"))
        payload = json.dumps(instance.PAYLOAD)
        words = [program, "submit", "analysis", payload, "--wait", f"{TIMEOUT_S:g}"]
        for _ in range(count):
            subprocess.run(words, check=True, env=self._environ, stdout=subprocess.DEVNULL)

    def _stock_worker(self) -> AbstractContextManager[Process]:
        return processes.stock_worker(self._others.url(FIRST), self._directory / "stock.log")

    def _count(
        self,
        name: str,
        redis: CountedRedis,
        run: Callable[[int], object],
        at_rest_per_s: float,
        *,
        tasks: int | None = None,
    ) -> tuple[float, float]:
        """Requests, and commands inside scripts, for one task."""
        tasks = tasks or self._plan.tasks
        # Connections are made by the first task in each process.
        run(1)
        time.sleep(0.5)
        started = time.monotonic()
        executed, before = redis.executed(), redis.proxy.counts()
        run(tasks)
        # The worker acknowledges after the result is there.
        time.sleep(0.5)
        seconds = time.monotonic() - started
        counts = difference(redis.proxy.counts(), before)
        inside = inside_scripts(redis.executed() - executed, counts)
        self.last[name] = counts
        return (total(counts) - at_rest_per_s * seconds) / tasks, inside / tasks


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, help="length of the window at rest")
    parser.add_argument("--quick", action="store_true", help="whether it works; no figures")
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    if options.seconds:
        plan = replace(plan, window_s=options.seconds)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swarm-bench-")))
        for part in ("rest", "tasks"):
            (directory / part).mkdir()
        rest = measure_rest(directory / "rest", plan)
        show(f"at rest, {rest.seconds:.0f} s", rest.ours)
        show(f"stock at rest, {rest.seconds:.0f} s", rest.stock)
        costs = TaskCosts(directory / "tasks", plan, rest, stack)
        rounds = [costs.round() for _ in range(plan.rounds)]
        medians = {name: median(each[name] for each in rounds) for name in rounds[0]}
        medians |= costs.other_ways()
        for name, counts in costs.last.items():
            show(f"{name}, last round", counts)
    figures = {name: round(value, 2) for name, value in medians.items()}
    print(
        json.dumps(
            {
                "window_s": round(rest.seconds),
                "rounds": plan.rounds,
                "tasks": plan.tasks,
                "long_task_s": plan.long_task_s,
                **rest.figures(),
                **figures,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

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
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

from redis import Redis

from bench import fleet as fleets
from bench import instance, stock
from bench.fleet import TIMEOUT_S, Fleet, Process
from bench.proxy import CountingProxy, Counts, difference
from swarm.celery_app import app
from swarm.client import Client
from tests.loopback import PASSWORD

PAYLOAD = {"html": "<title>A page</title><p>Some words.</p>"}
FIRST, FLOWER, SCALER, PRODUCER = "instance-1", "flower", "scaler", "producer"
#: They count in INFO when they end, which is up to minutes after they were sent.
_BLOCKING = frozenset({"BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BZPOPMIN", "BLMPOP"})
#: Our own look at the figures.
_LOOK = "INFO"


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    #: Seconds counted at rest: three of the longest waits for work (240 s), and whole numbers of
    #: the periods of 20, 30, 60 and 120 s, so that none is counted once too often.
    window_s: float = 720
    #: Seconds after the start in which nothing is counted.
    settle_s: float = 30
    further_instances: int = 2
    rounds: int = 5
    tasks: int = 50
    one_shots: int = 5
    long_task_s: float = 60


QUICK = Plan(
    window_s=4, settle_s=1, further_instances=1, rounds=1, tasks=10, one_shots=1, long_task_s=1
)


@dataclass(frozen=True)
class CountedRedis:
    """A Redis, and the proxy before it."""

    direct: Redis
    proxy: CountingProxy

    def url(self, party: str) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.proxy.ports[party]}/0"

    def executed(self) -> Counter[str]:
        """Commands that Redis has run, those inside scripts too."""
        rows = cast("Mapping[str, Mapping[str, Any]]", self.direct.info("commandstats"))
        names = (name.removeprefix("cmdstat_").replace("|", " ").upper() for name in rows)
        calls = (int(row["calls"]) for row in rows.values())
        return Counter(dict(zip(names, calls, strict=True)))


@contextmanager
def counted_redis(directory: Path, *parties: str) -> Iterator[CountedRedis]:
    """Started, with a port for each party."""
    with (
        fleets.redis_server(directory) as server,
        server.connect() as direct,
        CountingProxy(server.port, parties) as proxy,
    ):
        yield CountedRedis(direct, proxy)


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
        processes = [
            *instances.values(),
            enter(fleet.flower(ours.url(FLOWER))),
            # Flower's live view needs -E, as our instances have it.
            enter(fleets.stock_worker(others.url(FIRST), directory / "stock.log", "-E")),
            enter(fleets.stock_flower(others.url(FLOWER), directory / "stock-flower.log")),
            enter(fleet.scaler(ours.url(SCALER), instances)),
        ]
        time.sleep(plan.settle_s)
        started = time.monotonic()
        before = ours.proxy.counts(), others.proxy.counts()
        time.sleep(plan.window_s)
        after = ours.proxy.counts(), others.proxy.counts()
        seconds = time.monotonic() - started
        fleets.tell_to_stop(processes)
    return Rest(seconds, difference(after[0], before[0]), difference(after[1], before[1]))


class TaskCosts:
    """Counts tasks: ours with a producer in this process, and stock's."""

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
        # Our app reads them when it is first used, which is below.
        os.environ.update(self._fleet.environ(self._ours.url(PRODUCER)))
        self._client = Client(app)
        url = self._others.url(PRODUCER)
        stock.defaults.conf.update(broker_url=url, result_backend=url)
        self.last: dict[str, Counts] = {}

    def round(self) -> dict[str, float]:
        """Requests for a task, each way once."""
        figures: dict[str, float] = {}
        with self._fleet.instance(self._ours.url(FIRST), events="off"):
            figures["per_task"], figures["inside_scripts_per_task"] = self._count(
                "per_task", self._ours, self._submit_and_wait, self._at_rest
            )
        with self._fleet.instance(self._ours.url(FIRST), events="on"):
            figures["events_on_per_task"], _ = self._count(
                "events_on_per_task", self._ours, self._submit_and_wait, self._at_rest
            )
        with self._stock_worker():
            figures["stock_per_task"], _ = self._count(
                "stock_per_task", self._others, self._stock_submit_and_wait, self._stock_at_rest
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
                self._submit_in_a_new_process,
                self._at_rest,
                tasks=self._plan.one_shots,
            )
            figures = {"one_shot_per_task": one_shot, **self._long_task()}
            fleets.tell_to_stop([worker, stock_worker])
        return figures

    def _long_task(self) -> dict[str, float]:
        """Everything from its submission to its result, ours and stock's at once."""
        self._submit_and_wait()
        self._stock_submit_and_wait()
        time.sleep(1)
        seconds = self._plan.long_task_s
        before = self._ours.proxy.counts(), self._others.proxy.counts()
        handles = instance.nap.delay(seconds), stock.defaults.tasks["bench.nap"].delay(seconds)
        for handle in handles:
            handle.get(timeout=seconds + TIMEOUT_S)
        time.sleep(0.5)
        self.last["long_task"] = difference(self._ours.proxy.counts(), before[0])
        self.last["stock_long_task"] = difference(self._others.proxy.counts(), before[1])
        return {name: _total(self.last[name]) for name in ("long_task", "stock_long_task")}

    def _submit_in_a_new_process(self) -> None:
        program = str(Path(sys.executable).with_name("swarm"))
        words = [program, "submit", "analysis", json.dumps(PAYLOAD), "--wait", f"{TIMEOUT_S:g}"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    def _stock_worker(self) -> AbstractContextManager[Process]:
        return fleets.stock_worker(self._others.url(FIRST), self._directory / "stock.log")

    def _submit_and_wait(self) -> None:
        task_id = self._client.submit("analysis", PAYLOAD)
        result = self._client.result(task_id, wait_s=TIMEOUT_S)
        if result.state != "done":
            raise RuntimeError(f"the task did not end well: {result}")

    def _stock_submit_and_wait(self) -> None:
        stock.defaults.tasks["bench.clock"].delay().get(timeout=TIMEOUT_S)

    def _count(
        self,
        name: str,
        redis: CountedRedis,
        run: Callable[[], None],
        at_rest_per_s: float,
        *,
        tasks: int | None = None,
    ) -> tuple[float, float]:
        """Requests, and commands inside scripts, for one run."""
        tasks = tasks or self._plan.tasks
        # Connections are made by the first task in each process.
        run()
        time.sleep(0.5)
        started = time.monotonic()
        executed, before = redis.executed(), redis.proxy.counts()
        for _ in range(tasks):
            run()
        # The worker acknowledges after the result is there.
        time.sleep(0.5)
        seconds = time.monotonic() - started
        counts = difference(redis.proxy.counts(), before)
        inside = _inside_scripts(redis.executed() - executed, counts)
        self.last[name] = counts
        return (_total(counts) - at_rest_per_s * seconds) / tasks, inside / tasks


def _total(counts: Counts) -> int:
    return sum(counter.total() for counter in counts.values())


def _inside_scripts(executed: Counter[str], counts: Counts) -> int:
    """Commands that Redis ran and nobody sent."""
    sent = sum(counts.values(), start=Counter[str]())
    return sum(
        executed[name] - sent[name] for name in executed if name not in _BLOCKING and name != _LOOK
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, help="length of the window at rest")
    parser.add_argument("--quick", action="store_true", help="whether it works; no figures")
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    if options.seconds:
        plan = Plan(window_s=options.seconds)
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


def show(title: str, counts: Counts) -> None:
    """Who asked what how often."""
    print(f"{title}: {_total(counts)}")
    for party, counter in sorted(counts.items()):
        commands = ", ".join(f"{name} {count}" for name, count in counter.most_common())
        print(f"  {party}: {commands or 'nothing'}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

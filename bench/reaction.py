"""How soon the deployed lab reacts to a burst of tasks from rest: `make bench-reaction`.

Each repetition begins with the smallest fleet, idle. A burst of browser tasks is submitted, and the
time counts from before the first of them is: until systemd on a host begins to start an instance,
until the first task of the burst begins on an instance that was started since, and until the
producer has all results. The first two are read from the hosts' journals. The scaler's windows are
shortened meanwhile, so that it comes to rest in seconds.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import redis

from bench.lab_journal import Journal, read_journal
from bench.lab_rest import until_at_rest
from bench.lab_run import deployed_lab, from_one
from bench.lab_windows import configured, short_windows
from chaos.deployed_lab import DeployedLab
from chaos.waits import p95
from lab.commands import LabError
from lab.demo import browser_payload
from swarm.celery_app import app
from swarm.client import Client
from swarm.config import config_path, load_settings
from swarm.errors import SwarmError

POOL = "browser"
#: What is aimed at on two cores: seconds of 95 in 100 repetitions.
START_ISSUED_P95_S, FIRST_TASK_P95_S = 3.0, 6.0
_RESULT_TIMEOUT_S = 120.0
#: Seconds of a pause of chance at rest: bursts come at any moment between two turns.
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class Reaction:
    """Of one burst, in seconds from before its first task was submitted."""

    start_issued_s: float
    first_task_s: float
    all_done_s: float
    starts: int
    """Instances that were started for it."""

    def row(self, number: int) -> str:
        """The line of the table, under `_HEADER`."""
        return (
            f"{number:>6} {self.start_issued_s:>14.2f} {self.first_task_s:>12.2f} "
            f"{self.all_done_s:>10.2f} {self.starts:>8}"
        )


_HEADER = f"{'burst':>6} {'start issued s':>14} {'first task s':>12} {'all done s':>10} starts"


def main() -> int:
    """Measure and print; 1 when the lab cannot be measured or a task failed."""
    parser = argparse.ArgumentParser(prog="bench.reaction", description=__doc__)
    parser.add_argument("--repetitions", type=from_one, default=20)
    parser.add_argument("--tasks", type=from_one, default=24, help="of a burst")
    parser.add_argument("--seed", type=int, default=1, help="of the pauses between bursts")
    parser.add_argument(
        "--starts-at-once",
        type=from_one,
        help="host_starts_at_once meanwhile; the deployed one if none is given",
    )
    options = parser.parse_args()
    scaler = short_windows()
    if options.starts_at_once is not None:
        scaler["host_starts_at_once"] = options.starts_at_once
    try:
        reactions = measure(options.repetitions, options.tasks, options.seed, scaler)
    except (LabError, SwarmError, redis.RedisError) as exc:
        print(f"bench-reaction: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(json.dumps(summarise(reactions, options.tasks)))
    return 0


def measure(repetitions: int, tasks: int, seed: int, scaler: Mapping[str, float]) -> list[Reaction]:
    """As many bursts, each from rest, with these settings of the scaler.

    Raises:
        LabError: the lab is not deployed or does not come to rest; a task failed, or no start
            followed a burst.
    """
    lab, client = deployed_lab(), Client(app)
    minima = {name: each.min_instances for name, each in load_settings(config_path()).pools.items()}
    chance = random.Random(seed)
    reactions = []
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        configured(lab, {"scaler": scaler}, Path(name)),
    ):
        print(_HEADER)
        for number in range(1, repetitions + 1):
            until_at_rest(lab, minima)
            time.sleep(chance.uniform(0, _LONGEST_PAUSE_S))
            reactions.append(_burst(lab, client, tasks))
            print(reactions[-1].row(number), flush=True)
    return reactions


def _burst(lab: DeployedLab, client: Client, tasks: int) -> Reaction:
    began_at = time.time()
    ids = [client.submit("browser", browser_payload(number)) for number in range(tasks)]
    results = [client.result(task_id, wait_s=_RESULT_TIMEOUT_S) for task_id in ids]
    done_at = time.time()
    wrong = [result for result in results if result.state != "done"]
    if wrong:
        raise LabError(f"{len(wrong)} of {tasks} tasks are not done: {wrong[0].error or 'pending'}")
    return react(read_journal(lab, began_at, pools=[POOL]), set(ids), began_at, done_at)


def react(journal: Journal, ids: Collection[str], began_at: float, done_at: float) -> Reaction:
    """What the journals say of a burst.

    Raises:
        LabError: nothing was started for it, or what was got none of its tasks.
    """
    starts = [each for each in journal.starts if each.pool == POOL and each.at >= began_at]
    new = {each.invocation for each in starts}
    begun = [run.begun_at for run in journal.runs if run.task_id in ids and run.invocation in new]
    if not starts:
        raise LabError("no instance was started: give more --tasks")
    if not begun:
        raise LabError(f"{len(new)} instances were started, and had no task: give more --tasks")
    return Reaction(
        min(each.at for each in starts) - began_at,
        min(begun) - began_at,
        done_at - began_at,
        len(new),
    )


def summarise(reactions: Sequence[Reaction], tasks: int) -> dict[str, float]:
    """The last line; percentiles by nearest rank."""
    figures: dict[str, float] = {"repetitions": len(reactions), "tasks_per_burst": tasks}
    for name in ("start_issued_s", "first_task_s", "all_done_s"):
        values = [getattr(each, name) for each in reactions]
        stem = name.removesuffix("_s")
        figures[f"{stem}_p50_s"] = round(median(values), 2)
        figures[f"{stem}_p95_s"] = round(p95(values) or 0.0, 2)
    return figures


if __name__ == "__main__":
    sys.exit(main())

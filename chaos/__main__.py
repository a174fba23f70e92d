"""`make chaos SEED=n`: break the deployed lab by a schedule, then hold each task against the file.

Exit status 0 only when nothing was lost or committed twice, all kinds of faults struck, and what
victims held was back in time. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path
from uuid import uuid4

import redis

from chaos.conclusion import Outcome, conclude
from chaos.field import WORKERS, Field
from chaos.ground import begin_file, ground_prepared, leftovers, read_file, the_proxy
from chaos.ledger import Book, read_book, stand
from chaos.play import Story, drain, finish, play
from chaos.producers import Producers
from chaos.recovery import Watch
from chaos.schedule import FULL, SHORT, Plan, make_schedule
from chaos.stage import Stage
from chaos.witness import examine, read_commands
from lab.commands import LabError
from lab.hosts import use_lab_settings
from lab.state import State, default_directory
from swarm.celery_app import app
from swarm.errors import SwarmError

#: Some jobs meet a broker that is away, and count as nothing: so there are more of them.
SURPLUS = 1.15


def main() -> int:
    """Run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="the schedule; one is made up and told if none")
    parser.add_argument("--short", action="store_true", help="fewer tasks and faults")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1000)  # noqa: S311
    try:
        return run(State(default_directory()), seed, SHORT if options.short else FULL)
    except (LabError, SwarmError, redis.RedisError) as exc:
        print(f"chaos: {exc}", file=sys.stderr)
        return 1


def run(state: State, seed: int, plan: Plan) -> int:
    """One run."""
    use_lab_settings(state)
    ground = Field(state)
    schedule = make_schedule(seed, plan, (WORKERS[0], WORKERS[1]))
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory, ground_prepared(ground):
        file = begin_file(ground)
        with the_proxy(ground, schedule) as proxy, Watch(ground.redis) as watch:
            tasks = int(plan.tasks * SURPLUS)
            producers = Producers(
                Path(directory), seed, tasks, uuid4().hex, 0.95 * schedule.lasts_s
            )
            book = Path(directory) / "faults"
            stage = Stage(ground, schedule, proxy, watch, producers, Book(book))
            story = Story()
            story.tell(
                f"seed {seed}: {tasks} tasks and {len(schedule.strikes)} faults in "
                f"{schedule.lasts_s:.0f} s; the workers of {schedule.proxied} behind the proxy"
            )
            try:
                producers.start()
                play(stage, story)
                finish(producers, story)
                replayed = drain(ground, story)
            finally:
                producers.stop()
            standing = stand([*producers.entries(), *read_book(book)])
            evidence = examine(read_commands(read_file(ground, file)))
            left = leftovers(ground)
            samples, never_back = list(watch.samples), watch.open_victims()
            return conclude(
                plan,
                schedule,
                story,
                Outcome(standing, evidence, samples, never_back, replayed, left),
            )


if __name__ == "__main__":
    # Fault threads and producers publish with the lab's settings, read when Celery first asks.
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    _ = app
    sys.exit(main())

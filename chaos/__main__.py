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

from chaos.conclusion import RunRecord, conclude
from chaos.deployed_lab import WORKERS, DeployedLab
from chaos.fault_context import FaultContext
from chaos.play import Story, drain, finish, play
from chaos.preparation import (
    begin_append_only_file,
    lab_prepared,
    leftovers,
    read_append_only_file,
    trap_proxy,
)
from chaos.producers import Producers
from chaos.recovery import Watch
from chaos.schedule import FULL, SHORT, Plan, make_schedule
from chaos.submissions import SubmissionLog, read_submissions, resolve_statuses
from chaos.two_brokers.run import run_two
from chaos.two_brokers.stand import has_two_brokers
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
    parser.add_argument(
        "--brokers", type=int, choices=(1, 2), default=1, help="how many the lab is deployed with"
    )
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1000)  # noqa: S311
    try:
        if options.brokers == 2:
            return run_two(State(default_directory()), seed)
        return run(State(default_directory()), seed, SHORT if options.short else FULL)
    except (LabError, SwarmError, redis.RedisError) as exc:
        print(f"chaos: {exc}", file=sys.stderr)
        return 1


def run(state: State, seed: int, plan: Plan) -> int:
    """One run."""
    if has_two_brokers(state):
        raise LabError("the lab has two brokers: run `make deploy`, or say BROKERS=2")
    use_lab_settings(state)
    lab = DeployedLab(state)
    schedule = make_schedule(seed, plan, (WORKERS[0], WORKERS[1]))
    with tempfile.TemporaryDirectory(prefix="chaos-") as directory, lab_prepared(lab):
        base = begin_append_only_file(lab)
        with trap_proxy(lab, schedule) as proxy, Watch(lab.redis) as watch:
            tasks = int(plan.tasks * SURPLUS)
            producers = Producers(
                Path(directory), seed, tasks, uuid4().hex, 0.95 * schedule.lasts_s
            )
            faults_log = Path(directory) / "faults"
            submissions = SubmissionLog(faults_log)
            context = FaultContext(lab, schedule, proxy, watch, producers, submissions)
            story = Story()
            story.tell(
                f"seed {seed}: {tasks} tasks and {len(schedule.strikes)} faults in "
                f"{schedule.lasts_s:.0f} s; the workers of {schedule.proxied} behind the proxy"
            )
            try:
                producers.start()
                play(context, story)
                finish(producers, story)
                replayed = drain(lab, story)
            finally:
                producers.stop()
            statuses = resolve_statuses([*producers.entries(), *read_submissions(faults_log)])
            evidence = examine(read_commands(read_append_only_file(lab, base)))
            left = leftovers(lab)
            samples, never_back = list(watch.samples), watch.open_victims()
            return conclude(
                plan,
                schedule,
                story,
                RunRecord(statuses, evidence, samples, never_back, replayed, left),
            )


if __name__ == "__main__":
    # Fault threads and producers publish with the lab's settings, read when Celery first asks.
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    _ = app
    sys.exit(main())

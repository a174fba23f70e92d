"""`make chaos SEED=n`: break the deployed lab by a schedule, then hold each task against the file.

Exit status 0 only when nothing was lost or committed twice, all kinds of faults struck, and what
victims held was back in time. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import redis

from chaos.faults import FAULTS, Stage, remove_next
from chaos.field import CONTROL, HERE, REDIS_PORT, WORKERS, Field, MissedError
from chaos.ledger import Book, Standing, read_book, stand
from chaos.producers import Producers
from chaos.proxy import Shas, TrapProxy
from chaos.recovery import Sample, Watch, look, p95
from chaos.schedule import FULL, SHORT, Plan, Schedule, Strike, make_schedule
from chaos.witness import Evidence, Verdict, examine, judge, read_commands
from lab.commands import LabError
from lab.demo import use_lab_settings
from lab.state import State, default_directory
from swarm.celery_app import app
from swarm.errors import SwarmError

#: Bounds on the time until what a victim held is back, in seconds.
PROCESS_P95_S, HOST_P95_S = 3.0, 75.0
DRAIN_TIMEOUT_S = 240
QUEUES = ("browser", "analysis")
#: Some jobs meet a broker that is away, and count as nothing: so there are more of them.
SURPLUS = 1.15
_APPEND_ONLY = "/var/lib/redis/appendonlydir"


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


@dataclass(slots=True)
class Story:
    """What has struck, told as it happens."""

    begun: float = field(default_factory=time.monotonic)
    struck: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        print(f"{time.monotonic() - self.begun:>6.1f} s  {line}", flush=True)


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
            return conclude(
                plan, schedule, story, Outcome(standing, evidence, watch, replayed, left)
            )


# -- before and after


@contextlib.contextmanager
def ground_prepared(ground: Field) -> Iterator[None]:
    """At rest before; as it was deployed afterwards."""
    ground.until_redis_answers()
    left = leftovers(ground)
    if left:
        raise LabError(f"the lab is not at rest: {left}")
    try:
        yield
    finally:
        for host in WORKERS:
            remove_next(ground, host)
            ground.on(host, "systemctl reset-failed 'celery-*' || true")
        with contextlib.closing(ground.redis()) as client:
            client.config_set("auto-aof-rewrite-percentage", 100)


@contextlib.contextmanager
def the_proxy(ground: Field, schedule: Schedule) -> Iterator[TrapProxy]:
    """In front of one host's workers, which are led to it and away again."""
    restart = "systemctl try-restart 'celery-*'"
    shas = deployed_scripts(ground)
    with TrapProxy(HERE, (str(CONTROL.address), REDIS_PORT), shas) as proxy:
        try:
            ground.lead_through(schedule.proxied, proxy.port)
            ground.on(schedule.proxied, restart)
            yield proxy
        finally:
            ground.lead_straight(schedule.proxied, proxy.port)
            ground.on(schedule.proxied, restart)


def deployed_scripts(ground: Field) -> Shas:
    """Of the release on the lab, which need not be that of this tree."""
    code = "from swarm.delivery.scripts import *; print(TAKE.sha, COMMIT.sha)"
    take, commit = ground.on(CONTROL.name, f"/opt/swarm/current/bin/python -c '{code}'").split()
    return Shas(take, commit)


def begin_file(ground: Field) -> str:
    """Start a new append-only file; the name of its base tells it from later ones."""
    with contextlib.closing(ground.redis()) as client:
        client.bgrewriteaof()
        deadline = time.monotonic() + 30
        while True:
            told: Any = client.info("persistence")
            if not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]:
                break
            if time.monotonic() > deadline:
                raise LabError("Redis did not rewrite its append-only file within 30 s")
            time.sleep(0.1)
    ground.keep_append_only_file()
    return base_of(ground)


def base_of(ground: Field) -> str:
    """The file that Redis reads before what was appended; each rewrite makes a new one."""
    return ground.on(CONTROL.name, f"ls {_APPEND_ONLY}/*.base.*")


def read_file(ground: Field, base: str) -> bytes:
    """What was appended since `begin_file`.

    Raises:
        LabError: it was rewritten, so that it no longer tells everything.
    """
    if base_of(ground) != base:
        raise LabError("Redis has rewritten its append-only file: the witness is gone")
    ssh = ["ssh", "-F", str(ground.state.ssh_config), CONTROL.name]
    done = subprocess.run(
        [*ssh, f"cat $(ls -v {_APPEND_ONLY}/*.incr.aof)"],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return done.stdout


# -- the run


def play(stage: Stage, story: Story) -> None:
    """Strike as scheduled, each fault in a thread of its own; returns when all are undone."""
    threads = []
    for strike in stage.schedule.strikes:
        time.sleep(max(0.0, story.begun + strike.at_s - time.monotonic()))
        thread = threading.Thread(target=_strike, args=(stage, strike, story), name=strike.fault)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()


def _strike(stage: Stage, strike: Strike, story: Story) -> None:
    try:
        what = FAULTS[strike.fault](stage, strike)
    except MissedError as exc:
        story.tell(f"{strike.fault}: missed, {exc}")
    except Exception as exc:  # noqa: BLE001 - told, and the run fails for it
        story.errors.append(f"{strike.fault} on {strike.host}: {exc!r}")
        story.tell(f"{strike.fault}: FAILED, {exc!r}")
    else:
        story.struck[strike.fault] += 1
        story.tell(f"{strike.fault}: {what}")


def finish(producers: Producers, story: Story) -> None:
    """Wait until everything is submitted."""
    deadline = time.monotonic() + 60
    while producers.running() and time.monotonic() < deadline:
        time.sleep(0.2)
    if producers.running() or producers.failures():
        story.errors.append(f"producers did not end well: {producers.failures()}")
    story.tell("all is submitted")


def drain(ground: Field, story: Story) -> int:
    """Wait until nothing is left, replaying dead letters; returns how many there were."""
    replayed = 0
    quiet = 0
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while quiet < 3 and time.monotonic() < deadline:
        left = leftovers(ground)
        if set(left) == {"dead"}:
            told = ground.on(CONTROL.name, "swarm dead replay --all")
            replayed += len(told.splitlines())
        quiet = 0 if left else quiet + 1
        time.sleep(0.5)
    story.tell(f"drained, with {replayed} dead letters replayed")
    return replayed


def leftovers(ground: Field) -> dict[str, int]:
    """What waits, is scheduled, held, or dead; nothing at rest."""
    with contextlib.closing(ground.redis()) as client:
        waiting = sum(int(client.llen(key)) for queue in QUEUES for key in queue_keys(queue))
        scheduled = sum(int(client.zcard(f"swarm:scheduled:{queue}")) for queue in QUEUES)
        counts = {
            "waiting": waiting,
            "scheduled": scheduled,
            "held": len(look(client)),
            "dead": int(client.hlen("swarm:dead")),
        }
    return {name: count for name, count in counts.items() if count}


def queue_keys(queue: str) -> list[str]:
    """The lists of a queue, one for each of kombu's priorities."""
    return [queue, *(f"{queue}\x06\x16{priority}" for priority in (3, 6, 9))]


# -- the end


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run has left behind."""

    standing: Standing
    evidence: Evidence
    watch: Watch
    replayed: int
    left: dict[str, int]


def conclude(plan: Plan, schedule: Schedule, story: Story, outcome: Outcome) -> int:
    """Tell what came out, and whether it is good."""
    verdict = judge(outcome.standing, outcome.evidence)
    measured = [each for each in outcome.watch.samples if not each.in_outage]
    process = [each.seconds for each in measured if each.kind == "process"]
    host = [each.seconds for each in measured if each.kind == "host"]
    tell(verdict, outcome, story)
    summary = {
        "accepted": verdict.accepted,
        "committed": verdict.committed,
        "lost": len(verdict.lost),
        "committed_twice": len(verdict.committed_twice),
        "recovery_process_p95_s": rounded(p95(process)),
        "recovery_host_p95_s": rounded(p95(host)),
        "faults": dict(sorted(story.struck.items())),
        "seed": schedule.seed,
    }
    planned = {strike.fault for strike in schedule.strikes}
    problems = [
        *story.errors,
        *(f"no {fault} struck" for fault in sorted(planned - set(story.struck))),
        *(f"lost: {task_id}" for task_id in verdict.lost[:20]),
        *(f"committed twice: {task_id}" for task_id in verdict.committed_twice[:20]),
    ]
    if verdict.accepted < plan.tasks:
        problems.append(f"{verdict.accepted} tasks accepted, expected {plan.tasks} or more")
    if outcome.left:
        problems.append(f"left in Redis: {outcome.left}")
    if outcome.watch.open_victims():
        problems.append(f"{outcome.watch.open_victims()} messages of victims never came back")
    if not process or max_of(process) > PROCESS_P95_S:
        problems.append(f"recovery from a process's death: expected p95 <= {PROCESS_P95_S:g} s")
    if "kill_host" in planned and (not host or max_of(host) > HOST_P95_S):
        problems.append(f"recovery from a host's death: expected p95 <= {HOST_P95_S:g} s")
    for problem in problems:
        print(f"chaos: {problem}", flush=True)
    print(json.dumps(summary))
    return 1 if problems else 0


def max_of(seconds: list[float]) -> float:
    """The 95th percentile of what is there."""
    return p95(seconds) or 0.0


def rounded(seconds: float | None) -> float | None:
    """As the last line has it."""
    return None if seconds is None else round(seconds, 2)


def tell(verdict: Verdict, outcome: Outcome, story: Story) -> None:
    """What the last line has no room for."""
    takes = outcome.evidence.takes
    print(
        f"\n{takes.total()} times a worker took a task, {verdict.retaken} tasks were taken more "
        f"than once; {verdict.failed} ended with a failure, {verdict.void} were not due as one "
        f"before them in a chain had failed\n"
        f"{verdict.unknown} tasks of which their producer does not know whether they were "
        f"accepted: {verdict.unknown_committed} of them are committed, each once\n"
        f"{verdict.burials} dead letters, {outcome.replayed} replayed"
    )
    groups: dict[str, list[Sample]] = {}
    for sample in outcome.watch.samples:
        name = f"{sample.fault}{' while Redis was away' if sample.in_outage else ''}"
        groups.setdefault(name, []).append(sample)
    for name, samples in sorted(groups.items()):
        seconds = ", ".join(f"{each.seconds:.2f}" for each in samples)
        print(f"  back after {name}: {seconds} s")
    print(f"in {time.monotonic() - story.begun:.0f} s\n", flush=True)


if __name__ == "__main__":
    # Fault threads and producers publish with the lab's settings, read when Celery first asks.
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    _ = app
    sys.exit(main())

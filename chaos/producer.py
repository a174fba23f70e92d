"""A producer: a process of its own that submits its share of the jobs, at a pace.

Started again after it was killed, it goes on behind the last job it began. It sends as any program
would: through `swarm.client`, and chains, chords and countdowns with Celery's own calls.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from celery import Signature, chain, chord
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from chaos.submissions import Entry, SubmissionLog, SubmissionStatus, read_submissions
from chaos.work import Job, Step, make_jobs
from swarm.celery_app import app
from swarm.client import Client
from swarm.errors import BrokerAwayError, DuplicateTaskError

#: Share of the jobs that are sent in one go at the begin, so that the pools grow on all hosts.
AT_ONCE = 0.15
#: Seconds between two attempts while the broker is away.
PAUSE_S = 1.0


def main() -> int:
    """Submit the share; 0 when all of it is answered for."""
    parser = argparse.ArgumentParser(prog="chaos.producer")
    for name in ("seed", "tasks", "share", "of"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--begun", type=float, required=True, help="epoch seconds of the first job")
    parser.add_argument("--run", required=True)
    parser.add_argument("--submissions", type=Path, required=True)
    options = parser.parse_args()
    begun_before = {entry.job for entry in read_submissions(options.submissions)}
    log = SubmissionLog(options.submissions)
    jobs = make_jobs(options.seed, options.tasks, options.run)
    at_once = int(AT_ONCE * len(jobs))
    pace_s = options.seconds / (len(jobs) - at_once)
    for job in jobs[options.share :: options.of]:
        if job.number not in begun_before:
            at_s = max(0, job.number - at_once) * pace_s
            time.sleep(max(0.0, options.begun + at_s - time.time()))
            submit(log, job)
    log.close()
    return 0


def submit(log: SubmissionLog, job: Job) -> None:
    """Send until it is accepted, or until nobody can tell whether it was."""

    def note(status: SubmissionStatus, ids: tuple[str, ...] = job.ids) -> None:
        log.write(Entry(job.number, status, job.kind, ids))

    note("sending")
    while True:
        if job.kind == "keyed":
            # With a key it is safe to ask again, whatever became of the first attempt. The
            # client makes up the ids, so only an answer tells which one it is.
            try:
                task_id = submit_keyed(job)
            except BrokerAwayError:
                time.sleep(PAUSE_S)
                continue
            note("accepted", (task_id,))
            return
        try:
            send(job)
        except DuplicateTaskError:
            note("accepted")
        except (OperationalError, RedisError, OSError):
            # It may be queued, and asking again might queue it twice.
            note("unknown")
        else:
            note("accepted")
        return


def submit_keyed(job: Job) -> str:
    """An analysis task under an idempotency key."""
    return Client(app).submit("analysis", job.steps[0].payload, idempotency_key=job.ids[0])


def send(job: Job) -> None:
    """Publish a job."""
    if job.kind == "chain":
        chain(*map(signature, job.steps)).apply_async()
    elif job.kind == "chord":
        *parts, body = map(signature, job.steps)
        chord(parts, body).apply_async(task_id=job.ids[-1])
    else:
        options: dict[str, Any] = {"countdown": job.countdown_s} if job.countdown_s else {}
        signature(job.steps[0]).apply_async(**options)


def signature(step: Step) -> Signature[Any]:
    """The task with its own arguments, whatever came before it."""
    made: Signature[Any] = app.signature(
        step.task, args=(step.payload,), task_id=step.id, immutable=True
    )
    return made


if __name__ == "__main__":
    sys.exit(main())

"""A producer with two brokers: submits its share of the jobs at a pace, and times each call.

It sends as any program would: through `swarm.client` and with Celery's own calls. Ids are the
app's, which name the broker, but for some that the producer brings along. It ends when the file
`stop` appears beside its log.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from celery import Signature, chain, chord
from kombu.exceptions import OperationalError
from prometheus_client import REGISTRY
from redis.exceptions import RedisError

from chaos.submissions import SubmissionStatus
from chaos.two_brokers.calls import Call, CallLog
from chaos.work import Job, Step, make_jobs
from swarm.brokers import VARIABLES
from swarm.celery_app import app
from swarm.client import Client
from swarm.delivery import ids
from swarm.delivery.outcome import successor_id
from swarm.delivery.publish import RefusedError, UncertainError
from swarm.errors import BrokerAwayError

#: Of so many single tasks one has an id that its producer made.
OWN_ID_EVERY = 7
#: Of what is sent again when no broker took it: seconds in between, and how often.
PAUSE_S, ATTEMPTS = 1.0, 5
TASKS_A_MINUTE = 100
_AWAY = (OperationalError, RedisError, OSError, BrokerAwayError)


def main() -> int:
    """Submit the share until told to stop; 0 then."""
    parser = argparse.ArgumentParser(prog="chaos.two_brokers.producer")
    for name in ("seed", "tasks", "share", "of"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--begun", type=float, required=True, help="moment of the first job")
    parser.add_argument("--run", required=True)
    parser.add_argument("--calls", type=Path, required=True)
    options = parser.parse_args()
    log, stop = CallLog(options.calls), options.calls.parent / "stop"
    jobs = make_jobs(options.seed, options.tasks, options.run)
    pace_s = 60 / TASKS_A_MINUTE * sum(len(job.steps) for job in jobs) / len(jobs)
    for job in jobs[options.share :: options.of]:
        time.sleep(max(0.0, options.begun + job.number * pace_s - time.monotonic()))
        if stop.exists():
            log.close()
            return 0
        submit(log, options.share, job)
    raise SystemExit("all jobs are submitted, and nobody said stop")


def submit(log: CallLog, producer: int, job: Job) -> None:
    """Send until it is accepted, or until nobody can tell whether it was."""
    for _ in range(ATTEMPTS):
        call = timed(producer, job)
        log.write(call)
        if call.status != "refused":
            return
        time.sleep(PAUSE_S)


def timed(producer: int, job: Job) -> Call:
    """One call, whatever comes of it."""
    before, begun = uncertain_publishes(), time.monotonic()
    call = Call(producer, job.number, job.kind, "unknown", begun, 0.0)
    try:
        call = send(job, call)
    except _AWAY as exc:
        call = replace(call, **_failure(job, exc))
    seconds = time.monotonic() - begun
    return replace(call, seconds=seconds, uncertain=uncertain_publishes() > before)


def _failure(job: Job, exc: Exception) -> dict[str, Any]:
    cause = exc.__cause__ if isinstance(exc, BrokerAwayError) else exc
    status: SubmissionStatus = "unknown"
    # Of a workflow some tasks may be accepted already.
    if isinstance(cause, RefusedError) and len(job.steps) == 1:
        status = "refused"
    known = (cause.task_id,) if isinstance(cause, UncertainError) else ()
    return {"status": status, "ids": known, "error": repr(exc)[:300]}


def uncertain_publishes() -> float:
    """How many times a broker broke off while it was given a task of this process."""
    return sum(
        REGISTRY.get_sample_value("swarm_publishes_total", {"broker": name, "outcome": "uncertain"})
        or 0.0
        for name in VARIABLES
    )


def send(job: Job, call: Call) -> Call:
    """Submit a job; the call with its ids."""
    first = job.steps[0]
    if job.kind == "chain":
        result = chain(*map(signature, job.steps)).apply_async()
        found = []
        while result is not None:
            found.append(str(result.id))
            result = result.parent
        return replace(call, status="accepted", ids=tuple(reversed(found)))
    if job.kind == "chord":
        *parts, body = map(signature, job.steps)
        result = chord(parts, body).apply_async()
        group = result.parent
        found = [str(part.id) for part in group.results]
        completion = successor_id(str(group.id), "chord")
        return replace(call, status="accepted", ids=(*found, str(result.id)), hidden=(completion,))
    own: dict[str, Any] = {}
    if job.kind == "keyed":
        task_id = _client_submit(first, idempotency_key=job.ids[0])
    elif job.number % OWN_ID_EVERY == 0:
        own = {"task_id": first.id}
        task_id = str(signature(first).apply_async(**own).id)
    elif job.countdown_s or job.number % 2:
        options = {"countdown": job.countdown_s} if job.countdown_s else {}
        task_id = str(signature(first).apply_async(**options).id)
    else:
        task_id = _client_submit(first)
    broker = "" if own else ids.broker_of(task_id)
    return replace(call, status="accepted", ids=(task_id,), broker=broker)


def _client_submit(step: Step, **options: Any) -> str:
    task_type = step.task.partition(".")[0]
    return Client(app).submit(task_type, step.payload, **options)  # type: ignore[arg-type]


def signature(step: Step) -> Signature[Any]:
    """The task with its own arguments, whatever came before it; its id is made when it is sent."""
    made: Signature[Any] = app.signature(step.task, args=(step.payload,), immutable=True)
    return made


if __name__ == "__main__":
    sys.exit(main())

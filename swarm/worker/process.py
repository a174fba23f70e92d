"""What one worker process owns: its engine. Tasks reach it here.

With prefork every pool child has one; with solo and threads the worker itself has it.
"""

from __future__ import annotations

from dataclasses import dataclass

from swarm.browse.engine import Engine
from swarm.browse.errors import JobError
from swarm.browse.payload import BrowserJob
from swarm.browse.result import JobResult
from swarm.browse.stores import make_store
from swarm.browse.visit import Deployment
from swarm.celery_app import DEADLINE_MARGIN_S
from swarm.environment import WorkerEnvironment
from swarm.errors import SwarmError
from swarm.worker.orders import Orders
from swarm.worker.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class _BrowserWork:
    engine: Engine
    telemetry: Telemetry
    deadline_s: float


_work: _BrowserWork | None = None
_host = ""


def start(environment: WorkerEnvironment, telemetry: Telemetry, orders: Orders) -> None:
    """Start what this pool's tasks need, once in each process.

    Raises:
        EngineError: the browser did not start.
    """
    # Celery gives a task no other way to its process.
    global _work, _host  # noqa: PLW0603
    _host = environment.host
    if environment.pool.task_type == "browser":
        settings = environment.settings.browser
        store = make_store(
            settings, host=environment.host, credential=environment.artifacts_credential
        )
        engine = Engine(
            Deployment(settings, store, environment.secrets),
            on_event=telemetry.browser_event,
            on_contexts=telemetry.contexts,
            is_pressed=lambda: orders.is_pressed,
            # A pool child is replaced by Celery after as many tasks, and its browser with it.
            uses_before_retirement=(
                None if environment.celery_pool == "prefork" else environment.max_tasks
            ),
        )
        deadline_s = environment.pool.task_time_limit_s - DEADLINE_MARGIN_S
        engine.start()
        _work = _BrowserWork(engine, telemetry, deadline_s)


def stop() -> None:
    """Close the browser; does nothing where there is none."""
    global _work  # noqa: PLW0603
    if _work is not None:
        _work.engine.stop()
        _work = None


def run_browser_job(job: BrowserJob, *, task_id: str, queue_s: float | None = None) -> JobResult:
    """Do a job on this process's browser, within the pool's time limit too.

    `queue_s` is how long its task waited to be taken, in seconds, where that is known.

    Raises:
        JobError: the job failed.
        SwarmError: the task was sent to a pool without browsers.
    """
    if _work is None:
        raise SwarmError("this worker has no browser: its pool is not of task_type browser")
    deadline_s = min(job.limits.deadline_s, _work.deadline_s)
    limits = job.limits.model_copy(update={"deadline_s": deadline_s})
    queued = {} if queue_s is None else {"queue": queue_s}
    wanted = job.model_copy(update={"limits": limits})
    try:
        result = _work.engine.run(wanted, task_id=task_id)
    except JobError as exc:
        if (known := exc.result) is None:
            raise
        known["timings_s"].update(queued)
        artifact_bytes = sum(artifact["bytes"] for artifact in known["artifacts"])
        _work.telemetry.job_ended(known["timings_s"], known["network"]["bytes"], artifact_bytes)
        raise exc.with_result({**known, "host": _host}) from None
    result.timings_s.update(queued)
    artifact_bytes = sum(artifact.bytes for artifact in result.artifacts)
    _work.telemetry.job_ended(result.timings_s, result.network.bytes, artifact_bytes)
    return result


def cancel(task_id: str) -> bool:
    """Give up a browser job that runs in this process; False when there is none of this id."""
    return _work is not None and _work.engine.cancel(task_id)


def host() -> str:
    """The host's name in config.yaml."""
    return _host

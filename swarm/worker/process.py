"""What one worker process owns: its engine. Tasks reach it here.

With prefork every pool child has one; with solo and threads the worker itself has it.
"""

from __future__ import annotations

from swarm.browse.engine import Engine
from swarm.browse.payload import BrowserJob
from swarm.browse.result import JobResult
from swarm.browse.stores import make_store
from swarm.browse.visit import Deployment
from swarm.celery_app import DEADLINE_MARGIN_S
from swarm.environment import WorkerEnvironment
from swarm.errors import SwarmError
from swarm.worker.telemetry import Telemetry

_engine: Engine | None = None
_host = ""
_deadline_s = 0.0


def start(environment: WorkerEnvironment, telemetry: Telemetry) -> None:
    """Start what this pool's tasks need, once in each process.

    Raises:
        EngineError: the browser did not start.
    """
    # Celery gives a task no other way to its process.
    global _engine, _host, _deadline_s  # noqa: PLW0603
    _host = environment.host
    if environment.pool.task_type == "browser":
        settings = environment.settings.browser
        store = make_store(
            settings, host=environment.host, credential=environment.artifacts_credential
        )
        engine = Engine(
            Deployment(settings, store, environment.secrets),
            on_event=lambda event, _cause: telemetry.browser_event(event),
            # A pool child is replaced by Celery after as many tasks, and its browser with it.
            uses_before_retirement=(
                None if environment.celery_pool == "prefork" else environment.max_tasks
            ),
        )
        _deadline_s = environment.pool.task_time_limit_s - DEADLINE_MARGIN_S
        engine.start()
        _engine = engine


def stop() -> None:
    """Close the browser; does nothing where there is none."""
    global _engine  # noqa: PLW0603
    if _engine is not None:
        _engine.stop()
        _engine = None


def run_browser_job(job: BrowserJob, *, task_id: str) -> JobResult:
    """Do a job on this process's browser, within the pool's time limit too.

    Raises:
        JobError: the job failed.
        SwarmError: the task was sent to a pool without browsers.
    """
    if _engine is None:
        raise SwarmError("this worker has no browser: its pool is not of task_type browser")
    deadline_s = min(job.limits.deadline_s, _deadline_s)
    limits = job.limits.model_copy(update={"deadline_s": deadline_s})
    return _engine.run(job.model_copy(update={"limits": limits}), task_id=task_id)


def cancel(task_id: str) -> bool:
    """Give up a browser job that runs in this process; False when there is none of this id."""
    return _engine is not None and _engine.cancel(task_id)


def host() -> str:
    """The host's name in config.yaml."""
    return _host

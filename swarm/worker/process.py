"""What one worker process owns: its engine. Tasks reach it here.

With prefork every pool child has one; with solo and threads the worker itself has it.
"""

from __future__ import annotations

from swarm.browse.artifacts import DirectoryStore
from swarm.browse.engine import Engine
from swarm.environment import WorkerEnvironment
from swarm.errors import SwarmError
from swarm.worker.telemetry import Telemetry

_engine: Engine | None = None
_host = ""


def start(environment: WorkerEnvironment, telemetry: Telemetry) -> None:
    """Start what this pool's tasks need, once in each process.

    Raises:
        EngineError: the browser did not start.
    """
    global _engine, _host  # noqa: PLW0603 - Celery gives a task no other way to its process
    _host = environment.host
    if environment.pool.task_type == "browser":
        settings = environment.settings.browser
        engine = Engine(
            settings,
            DirectoryStore(settings.artifacts_directory, host=environment.host),
            on_event=telemetry.browser_event,
        )
        engine.start()
        _engine = engine


def stop() -> None:
    """Close the browser; does nothing where there is none."""
    global _engine  # noqa: PLW0603
    if _engine is not None:
        _engine.stop()
        _engine = None


def engine() -> Engine:
    """This process's engine.

    Raises:
        SwarmError: the task was sent to a pool without browsers.
    """
    if _engine is None:
        raise SwarmError("this worker has no browser: its pool is not of task_type browser")
    return _engine


def host() -> str:
    """The host's name in config.yaml."""
    return _host

"""`swarm worker`: one Celery worker, told by its unit's variables, known to systemd."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import redis
from celery import signals
from celery.worker import state as celery_state

from swarm import logs
from swarm.brokers import Broker, connect
from swarm.brokers.counting import count_requests, place_of
from swarm.browse.engine import EngineError
from swarm.celery_app import SOFT_LIMIT_MARGIN_S, app
from swarm.delivery.holder import worker_holder
from swarm.delivery.release import release
from swarm.delivery.spool import Spool
from swarm.environment import WorkerEnvironment, read_worker
from swarm.sdnotify import Notifier
from swarm.worker import process
from swarm.worker.cancelling import Canceller, listen_in_child
from swarm.worker.control import ControlServer
from swarm.worker.drain import Drain, handlers, holds_tasks
from swarm.worker.metrics import WorkerMetrics
from swarm.worker.orders import LONGEST_ID, Orders
from swarm.worker.reporter import Reporter
from swarm.worker.steps import SignalWakeup, broker_watch, leave_signals_to_parent
from swarm.worker.task_watch import TaskWatch
from swarm.worker.telemetry import Telemetry

log = logging.getLogger(__name__)

EXIT_FAILURE = 1
#: Seconds between two worker heartbeats in Flower's live view; each is a PUBLISH on the broker.
#: Flower takes a worker for gone after twice as long.
EVENT_HEARTBEAT_S = 600
#: Seconds a pool child that could not start its browser waits before it exits, so that Celery
#: does not replace it many times a second.
_FAILED_START_DELAY_S = 2.0


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Run until told to stop; returns the exit status.

    Raises:
        ConfigError: before anything has started.
    """
    environment = read_worker(environ)
    notifier = Notifier(environ)
    logs.setup(
        environment.log_level,
        under_systemd=notifier.under_systemd,
        environ=environ,
        identity={
            "SWARM_POOL": environment.pool_name,
            "SWARM_INSTANCE": str(environment.instance),
            "SWARM_HOST": environment.host,
        },
    )
    # Celery's own lines for ended tasks hold what the task returned: whole pages.
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    metrics = WorkerMetrics(celery_levels=2 if environment.celery_pool == "prefork" else 1)
    metrics.serve(environment.metrics_address, environment.metrics_port)
    metered = None
    if environment.settings.broker(environment.broker.name).budget is not None:
        count_requests()
        metered = place_of(environment.broker)
    telemetry, orders = Telemetry(metered=metered), Orders()
    holder = worker_holder()
    drain = Drain(holder.intake, lambda: holds_tasks(holder))

    def pause(paused: bool) -> None:  # noqa: FBT001 - a callback's one value
        """Take nothing from the queues; what was taken is done."""
        orders.is_pressed = paused
        (holder.intake.close if paused else holder.intake.open)("load")

    reporter = Reporter(
        environment,
        telemetry,
        notifier,
        metrics,
        on_failed_start=_stop_with_failure,
        on_pause=pause,
        drain=drain,
    )
    control = _make_control(environment, orders, drain)
    receivers = _connect_signals(environment, telemetry, orders, reporter, control)
    holder.on_death = lambda task: telemetry.task_ended(task, "lost", 0.0)
    holder.on_broker = reporter.broker.failed
    holder.spool = _spool(environment)
    app.steps["consumer"].add(broker_watch(reporter.broker.connected))
    app.steps["consumer"].add(SignalWakeup)
    reporter.start()
    control.start()
    try:
        if environment.celery_pool != "prefork":
            process.start(environment, telemetry, orders)
            telemetry.process_ready()
        worker = _make_worker(environment)
        worker.start()
        return int(worker.exitcode or 0)
    except EngineError as exc:
        log.error("cannot work without a browser: %s", exc)  # noqa: TRY400
        return exc.exit_status
    finally:
        control.stop()
        process.stop()
        _give_back(environment.broker)
        reporter.stop()
        receivers.clear()


def _make_control(environment: WorkerEnvironment, orders: Orders, drain: Drain) -> ControlServer:
    canceller = Canceller(
        orders,
        prefork=environment.celery_pool == "prefork",
        has_browsers=environment.pool.task_type == "browser",
    )

    def cancel(request: Mapping[str, Any]) -> Mapping[str, Any]:
        task_id = request.get("task_id")
        if not isinstance(task_id, str) or not 0 < len(task_id.encode()) <= LONGEST_ID:
            raise ValueError(f"task_id: got {task_id!r:.100}, expected a task's id")
        return {"outcome": canceller.cancel(task_id)}

    name = f"{environment.pool_name}-{environment.instance}.sock"
    directory = environment.settings.worker.control_directory
    return ControlServer(directory / name, {"cancel": cancel, **handlers(drain)})


def _make_worker(environment: WorkerEnvironment) -> Any:
    autoscale = environment.autoscale
    hard_limit_s = environment.pool.task_time_limit_s
    events = environment.settings.broker(environment.broker.name).events
    return app.Worker(
        hostname=f"{environment.pool_name}-{environment.instance}@{environment.host}",
        pool_cls=environment.celery_pool,
        concurrency=environment.concurrency,
        autoscale=(autoscale.maximum, autoscale.minimum) if autoscale else None,
        queues=list(environment.queues),
        loglevel=environment.log_level.upper(),
        max_tasks_per_child=environment.max_tasks,
        task_time_limit=hard_limit_s,
        task_soft_time_limit=max(1, hard_limit_s - SOFT_LIMIT_MARGIN_S),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=not events,
        heartbeat_interval=EVENT_HEARTBEAT_S,
        task_events=events,
        quiet=True,
    )


def _give_back(broker: Broker) -> None:
    """Return what was taken while the worker was told to stop, and never begun."""
    holder = worker_holder()
    holder.pending_ends.send()
    try:
        with connect(broker) as client:
            if holder.spool is not None:
                holder.spool.send(client)
            release(client, str(holder.name), "return", "its worker stopped", choice="all")
    except redis.RedisError as exc:
        log.warning(
            "what this instance holds is not given back yet; its next start or the reaper does it",
            extra={"fields": {"reason": str(exc)}},
        )


def _spool(environment: WorkerEnvironment) -> Spool | None:
    directory = environment.settings.worker.spool_directory
    if directory.is_dir():
        return Spool(directory, environment.broker.name)
    log.warning(
        "no %s: should the broker be away when a task ends, its process waits until its time limit",
        directory,
    )
    return None


def _stop_with_failure(exit_status: int) -> None:
    """Ask Celery's loop to end: what it has taken meanwhile goes back to the queue."""
    celery_state.should_stop = exit_status or EXIT_FAILURE


def _connect_signals(
    environment: WorkerEnvironment,
    telemetry: Telemetry,
    orders: Orders,
    reporter: Reporter,
    control: ControlServer,
) -> list[Callable[..., None]]:
    """Celery keeps receivers weakly: whoever calls this must keep the list."""

    def leave_logging_alone(**_: object) -> None:
        """A receiver of setup_logging is what keeps Celery from configuring logging itself."""

    def begin_process(**_: object) -> None:
        leave_signals_to_parent()
        control.close_inherited()
        listen_in_child(orders)
        try:
            process.start(environment, telemetry, orders)
        except EngineError as exc:
            # Celery swallows what a receiver raises, and would go on without a browser.
            telemetry.process_failed(str(exc), exit_status=exc.exit_status)
            time.sleep(_FAILED_START_DELAY_S)
            os._exit(EXIT_FAILURE)
        telemetry.process_ready()

    def end_process(exitcode: int | None = None, **_: object) -> None:
        _end_pool_process(exitcode)

    def consuming(**_: object) -> None:
        reporter.consuming()

    def stopping(**_: object) -> None:
        reporter.stopping()

    signals.setup_logging.connect(leave_logging_alone)
    signals.worker_ready.connect(consuming)
    signals.worker_shutting_down.connect(stopping)
    receivers: list[Callable[..., None]] = [
        leave_logging_alone,
        consuming,
        stopping,
        *TaskWatch(telemetry).connect(),
    ]
    if environment.celery_pool == "prefork":
        signals.worker_process_init.connect(begin_process)
        signals.worker_process_shutdown.connect(end_process)
        receivers += [begin_process, end_process]
    return receivers


def _end_pool_process(exitcode: int | None) -> None:
    process.stop()
    if not exitcode:
        # billiard would tell its parent, who waits for the exit itself, and then sleep for a
        # second (billiard/pool.py, _do_exit).
        logs.flush()
        os._exit(0)

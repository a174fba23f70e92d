"""The thread that says how an instance is: to systemd, to the status file, to Prometheus.

It reads what Celery's parent process knows (taken and running requests) and what the worker
processes tell through the telemetry pipe. Being a thread, it goes on while a solo worker's loop
is busy with a task.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from celery.worker import state as celery_state

from swarm.brokers.counting import requests
from swarm.environment import WorkerEnvironment
from swarm.sdnotify import Notifier
from swarm.status import InstancePhase, InstanceStatus
from swarm.worker.broker_report import BrokerReport
from swarm.worker.drain import Drain
from swarm.worker.load import Load, own_cgroup
from swarm.worker.metrics import WorkerMetrics
from swarm.worker.telemetry import Message, Telemetry

log = logging.getLogger(__name__)

_TICK_S = 0.25
#: The status file is rewritten at least this often: its age is the proof that somebody lives.
_HEARTBEAT_S = 5.0
#: Seconds between two looks at the unit's limits.
_LOAD_S = 1.0
#: Weight of the newest task in the smoothed service time: half of it is forgotten in 7 tasks.
_SERVICE_TIME_WEIGHT = 0.1
#: What a process's browser is after an event.
_BROWSER_AFTER = {"launched": "up", "lost": "down", "killed": "down"}


class Reporter:
    """Owns the instance's status.

    `on_failed_start` is called when no process can work, `on_pause` when the instance has no room
    for more tasks, and when it has room again.
    """

    def __init__(
        self,
        environment: WorkerEnvironment,
        telemetry: Telemetry,
        notifier: Notifier,
        metrics: WorkerMetrics,
        *,
        on_failed_start: Callable[[int], None],
        on_pause: Callable[[bool], None],
        drain: Drain,
    ) -> None:
        self._environment = environment
        self._telemetry = telemetry
        self._notifier = notifier
        self._metrics = metrics
        self._on_failed_start = on_failed_start
        self._on_pause = on_pause
        self._drain = drain
        self._requests_of_children = 0
        self._started_at = time.monotonic()
        # Set by Celery's threads; only the reporter's own thread touches the status.
        self._consuming = False
        self._stopping = False
        self._broker = BrokerReport(environment.broker)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)
        self._processes_awaited = environment.processes
        self._write_failed = False
        worker = environment.settings.worker
        self._load = Load(
            worker.cgroup or own_cgroup(),
            memory_share=worker.pause_above_memory,
            pids_share=worker.pause_above_pids,
        )
        self._looked_at_load = float("-inf")
        self._status = InstanceStatus(
            pool=environment.pool_name,
            number=environment.instance,
            host=environment.host,
            pid=os.getpid(),
            phase="starting",
            capacity=environment.capacity,
            active=0,
            reserved=0,
            done=0,
            failed=0,
            idle_since=None,
            boot_time_s=None,
            service_time_s=None,
            broker="away",
            browser="down" if environment.pool.task_type == "browser" else "none",
            written_at=self._started_at,
            queues=environment.queues,
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Remove the status file: an instance that is gone has nothing to say."""
        self._stop.set()
        self._thread.join(timeout=5)
        directory = self._environment.settings.worker.status_directory
        (directory / f"{self._status.pool}-{self._status.number}.json").unlink(missing_ok=True)

    @property
    def broker(self) -> BrokerReport:
        """Told by Celery's thread."""
        return self._broker

    def consuming(self) -> None:
        self._consuming = True

    def stopping(self) -> None:
        self._stopping = True
        self._drain.shutting_down()

    def _run(self) -> None:
        last_written = last_line = None
        while not self._stop.is_set():
            self._telemetry.read(self._handle, timeout_s=_TICK_S)
            self._observe()
            self._observe_load()
            status = self._status
            line = status.line(broker_name=self._environment.broker.name)
            if line != last_line:
                self._notifier.status(line)
                last_line = line
            now = time.monotonic()
            if status != last_written or now - status.written_at >= _HEARTBEAT_S:
                self._status = last_written = replace(status, written_at=now)
                self._write(last_written)
                self._metrics.show(last_written)
                self._notifier.watchdog()

    def _observe(self) -> None:
        """Take over what Celery's parent knows; becoming idle is dated at the first look."""
        active = len(celery_state.active_requests)
        # Celery's reserved requests include the active ones.
        reserved = max(0, len(celery_state.reserved_requests) - active)
        idle_since = self._status.idle_since
        if active or reserved or self._status.phase == "starting":
            idle_since = None
        elif idle_since is None:
            idle_since = time.monotonic()
        drain = self._drain.look()
        self._status = replace(
            self._status,
            active=active,
            reserved=reserved,
            idle_since=idle_since,
            broker=self._broker.state,
            requests=self._requests(),
            drain=None if drain.state == "consuming" else drain,
        )
        if self._stopping and self._status.phase != "stopping":
            self._enter("stopping")
        elif self._status.phase == "starting" and self._consuming and self._processes_awaited <= 0:
            boot_time_s = time.monotonic() - self._started_at
            self._status = replace(self._status, boot_time_s=round(boot_time_s, 3))
            self._enter("running")

    def _requests(self) -> int | None:
        metered = self._telemetry.metered
        return None if metered is None else requests.total(metered) + self._requests_of_children

    def _observe_load(self) -> None:
        """Take nothing more while the unit is near its limits; what runs goes on."""
        now = time.monotonic()
        if now - self._looked_at_load < _LOAD_S:
            return
        self._looked_at_load = now
        was_paused, load = self._load.is_paused, self._load
        load.look()
        self._status = replace(self._status, paused=load.reason)
        self._metrics.show_load(load)
        if load.is_paused == was_paused:
            return
        self._on_pause(load.is_paused)
        if load.is_paused:
            log.warning("takes no more tasks for now", extra={"fields": {"reason": load.reason}})
        else:
            told = ", ".join(map(str, load.uses))
            log.info("takes tasks again", extra={"fields": {"load": told}})

    def _enter(self, phase: InstancePhase) -> None:
        self._status = replace(self._status, phase=phase)
        line = self._status.line(broker_name=self._environment.broker.name)
        if phase == "running":
            self._notifier.ready(line)
            log.info("ready", extra={"fields": {"boot_s": self._status.boot_time_s}})
        elif phase == "stopping":
            self._notifier.stopping(line)

    def _handle(self, message: Message) -> None:
        self._metrics.count(message)
        self._requests_of_children += message.requests
        if message.kind == "process-ready":
            self._processes_awaited -= 1
            if self._status.browser != "none":
                self._status = replace(self._status, browser="up")
        elif message.kind == "process-failed":
            log.error(
                "a worker process could not start",
                extra={"fields": {"pid": message.pid, "reason": message.label}},
            )
            if self._status.browser != "none":
                self._status = replace(self._status, browser="down")
            if self._status.phase == "starting":
                self._on_failed_start(message.count)
        elif message.kind == "browser" and message.label in _BROWSER_AFTER:
            # With several processes the last word wins: each of them replaces a lost browser
            # with its next task.
            self._status = replace(self._status, browser=_BROWSER_AFTER[message.label])
        elif message.kind == "task":
            self._count_task(message)

    def _count_task(self, message: Message) -> None:
        """An attempt that will be retried is neither done nor failed, but the place was used."""
        measured = self._status.service_time_s
        if message.seconds:
            before = message.seconds if measured is None else measured
            measured = round(before + _SERVICE_TIME_WEIGHT * (message.seconds - before), 4)
        self._status = replace(
            self._status,
            done=self._status.done + (message.label == "success"),
            failed=self._status.failed + (message.label == "failure"),
            # A task shorter than a tick is never seen active; it ended the idle time all the same.
            idle_since=None,
            service_time_s=measured,
        )

    def _write(self, status: InstanceStatus) -> None:
        try:
            status.write(self._environment.settings.worker.status_directory)
        except OSError as exc:
            if not self._write_failed:
                log.error(  # noqa: TRY400 - the reason is in the message, the stack adds nothing
                    "status file not written; the scaler cannot see whether this instance is idle "
                    "and will not stop it",
                    extra={"fields": {"reason": str(exc)}},
                )
            self._write_failed = True
        else:
            self._write_failed = False

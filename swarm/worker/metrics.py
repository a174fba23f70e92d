"""Prometheus metrics of one instance, served by its main process.

Pool processes come and go; what they tell is counted here, so that no count is lost with them.
"""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from swarm.errors import ConfigError, Problem
from swarm.status import InstanceStatus
from swarm.worker.load import Load
from swarm.worker.telemetry import Message
from swarm.worker.tree import TreeCollector

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
#: Stages of a browser job, and of any task the one before it.
STAGES = frozenset({"queue", "launch", "context", "navigation", "steps", "actions", "total"})


class WorkerMetrics:
    """A registry of its own, so that several can live in one test process."""

    def __init__(self, *, celery_levels: int = 1) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(TreeCollector(celery_levels=celery_levels))
        self._tasks = self._counter(
            "swarm_tasks", "Tasks that ended, by outcome and error code.", "task", "outcome", "code"
        )
        self._seconds = self._histogram(
            "swarm_task_seconds", "Time from start to end of a task's body.", "task"
        )
        self._stage_seconds = self._histogram(
            "swarm_stage_seconds",
            "Time that tasks waited in the queue, and browser jobs took for each stage.",
            "stage",
        )
        self._browser_events = self._counter(
            "swarm_browser_events",
            "Browsers launched, lost, retired and killed, and why.",
            "event",
            "cause",
        )
        self._crashes = self._counter(
            "swarm_page_crashes", "Pages whose renderer crashed or was killed.", "cause"
        )
        self._received_bytes = self._counter("swarm_received_bytes", "Bytes that pages received.")
        self._artifact_bytes = self._counter("swarm_artifact_bytes", "Bytes stored as artifacts.")
        self._contexts = self._gauge("swarm_browser_contexts", "Browser contexts that are open.")
        self._active = self._gauge("swarm_tasks_active", "Tasks being run.")
        self._reserved = self._gauge("swarm_tasks_reserved", "Tasks taken and not started.")
        self._capacity = self._gauge("swarm_worker_capacity", "Tasks that can run at a time.")
        self._broker_up = self._gauge("swarm_broker_up", "1 while connected to the broker.")
        self._paused = self._gauge("swarm_worker_paused", "1 while it takes no tasks for its load.")
        self._draining = self._gauge(
            "swarm_worker_draining", "1 while it takes no tasks because it is drained."
        )
        self._unit_share = Gauge(
            "swarm_unit_limit_ratio",
            "Share of the unit's limit that is used.",
            ["resource"],
            registry=self.registry,
        )
        self._contexts_of: dict[int, int] = {}

    def count(self, message: Message) -> None:
        match message.kind:
            case "task":
                self._tasks.labels(message.task, message.label, message.cause).inc()
                # One that never began, or whose end nobody saw, took no time that is known.
                if message.seconds:
                    self._seconds.labels(message.task).observe(message.seconds)
            case "browser" if message.label == "page-crashed":
                self._crashes.labels(message.cause).inc()
            case "browser":
                self._browser_events.labels(message.label, message.cause).inc()
            case "contexts":
                self._contexts_of[message.pid] = message.count
            case "job":
                self._received_bytes.inc(message.count)
                self._artifact_bytes.inc(message.artifact_bytes)
        for stage in message.stages.keys() & STAGES:
            self._stage_seconds.labels(stage).observe(message.stages[stage])

    def show(self, status: InstanceStatus) -> None:
        self._active.set(status.active)
        self._reserved.set(status.reserved)
        self._capacity.set(status.capacity)
        self._broker_up.set(status.broker == "ok")
        self._draining.set(status.drain is not None)
        # A process that was killed told nobody of its contexts' end.
        self._contexts_of = {pid: n for pid, n in self._contexts_of.items() if _lives(pid)}
        self._contexts.set(sum(self._contexts_of.values()))

    def show_load(self, load: Load) -> None:
        self._paused.set(load.is_paused)
        for use in load.uses:
            self._unit_share.labels(use.resource).set(use.share)

    def serve(self, address: str, port: int) -> None:
        """Answer scrapes on a daemon thread.

        Raises:
            ConfigError: the address is not ours or the port is taken.
        """
        try:
            start_http_server(port, addr=address, registry=self.registry)
        except OSError as exc:
            raise ConfigError(
                [
                    Problem(
                        "SWARM_METRICS_ADDRESS and metrics_port_base",
                        f"{address} port {port}",
                        f"an address of this host and a free port ({exc.strerror})",
                    )
                ]
            ) from exc

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)

    def _gauge(self, name: str, meaning: str) -> Gauge:
        return Gauge(name, meaning, registry=self.registry)

    def _histogram(self, name: str, meaning: str, *labels: str) -> Histogram:
        return Histogram(name, meaning, labels, buckets=_SECONDS, registry=self.registry)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

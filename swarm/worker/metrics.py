"""Prometheus metrics of one instance, served by its main process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from swarm.errors import ConfigError, Problem
from swarm.status import InstanceStatus
from swarm.worker.telemetry import Message


class WorkerMetrics:
    """A registry of its own, so that several can live in one test process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._tasks = Counter(
            "swarm_tasks",
            "Tasks that ended, by outcome (success, failure, retry, ...).",
            ["task", "outcome"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "swarm_task_seconds",
            "Time from start to end of a task's body.",
            ["task"],
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300),
            registry=self.registry,
        )
        self._browser_events = Counter(
            "swarm_browser_events",
            "Browsers launched, lost, retired and killed.",
            ["event"],
            registry=self.registry,
        )
        self._active = Gauge("swarm_tasks_active", "Tasks being run.", registry=self.registry)
        self._reserved = Gauge(
            "swarm_tasks_reserved", "Tasks taken and not started.", registry=self.registry
        )
        self._capacity = Gauge(
            "swarm_worker_capacity", "Tasks that can run at a time.", registry=self.registry
        )
        self._broker_up = Gauge(
            "swarm_broker_up", "1 while connected to the broker.", registry=self.registry
        )

    def count(self, message: Message) -> None:
        if message.kind == "task":
            self._tasks.labels(message.task, message.label).inc()
            self._seconds.labels(message.task).observe(message.seconds)
        elif message.kind == "browser":
            self._browser_events.labels(message.label).inc()

    def show(self, status: InstanceStatus) -> None:
        self._active.set(status.active)
        self._reserved.set(status.reserved)
        self._capacity.set(status.capacity)
        self._broker_up.set(status.broker == "ok")

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

"""The scaler's Prometheus metrics, and the list of instances to scrape (`http_sd`)."""

from __future__ import annotations

import time
from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from functools import partial
from math import nan

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from swarm.delivery.reaper import GivenBack
from swarm.errors import ConfigError, Problem
from swarm.scaler.adapters.targets import Targets
from swarm.scaler.aftermath import Event, Finding
from swarm.scaler.metering import Meter
from swarm.scaler.model import (
    Action,
    Drain,
    HostReport,
    InstanceState,
    Observation,
    Outcome,
    Stop,
    Undrain,
    Unknown,
)
from swarm.settings import Settings

_NEVER = object()
#: Ten in a decade (ISO 3's R10), from a millisecond to 50 s: a quantile is a tenth off at most.
_TURN_BUCKETS_S = tuple(
    round(number * decade, 5)
    for decade in (0.001, 0.01, 0.1, 1, 10)
    for number in (1, 1.25, 1.6, 2, 2.5, 3.15, 4, 5, 6.3, 8)
    if number * decade <= 50
)
_FINDINGS = {
    Event.KILL: ("kills", "Instances that a signal ended as they were stopped; must be 0."),
    Event.LATE_TASK: ("late_tasks", "Stops that waited for a task that had slipped in."),
    Event.REVERSAL: ("reversals", "Starts within 300 s after a stop."),
}


class ScalerMetrics:
    """Counts turns and serves `/metrics` and `/sd`."""

    def __init__(self, settings: Settings, *, dry_run: bool = False) -> None:
        self._dry_run = dry_run
        self._discovery = Targets(settings)
        self._outcome: Outcome | None = None
        self._shown: dict[str, tuple[object, Counts[tuple[str, InstanceState]]]] = {}
        self._runner: web.AppRunner | None = None
        self.registry = CollectorRegistry()
        self._waiting = self._gauge("queue_waiting", "Tasks waiting; absent when unknown.", "pool")
        self._desired = self._gauge("instances_desired", "Instances decided on.", "pool")
        self._wanted = self._gauge("instances_wanted", "Instances before any limit.", "pool")
        self._instances = self._gauge("instances", "Instances by state.", "pool", "host", "state")
        self._host_up = self._gauge("host_up", "1 when the host answered this turn.", "host")
        self._broker_up = self._gauge("broker_up", "0 while surveys show it away.", "broker")
        self._decisions = Counter(
            "swarm_scaler_decisions",
            "Decisions by direction and cause.",
            ["pool", "direction", "cause"],
            registry=self.registry,
        )
        self._actions = Counter(
            "swarm_scaler_actions",
            "What was asked of hosts: starts, drains, renewals, stops; by result.",
            ["pool", "host", "verb", "result"],
            registry=self.registry,
        )
        self._drains = Counter(
            "swarm_scaler_drains",
            "Drains begun, cancelled by demand, and completed by a stop.",
            ["pool", "result"],
            registry=self.registry,
        )
        self._drain_seconds = Histogram(
            "swarm_scaler_drain_seconds",
            "Time from the begin of a drain to the stop that completes it.",
            ["pool"],
            buckets=(2, 4, 6, 8, 10, 15, 30, 60, 120, 300, 600, 1800),
            registry=self.registry,
        )
        self._overdue = self._gauge(
            "drains_overdue", "Instances that drain for longer than their tasks may take.", "pool"
        )
        for pool in settings.pools:
            for result in ("begun", "cancelled", "completed"):
                self._drains.labels(pool, result)
        self._findings = {
            event: Counter(f"swarm_scaler_{name}", text, ["pool"], registry=self.registry)
            for event, (name, text) in _FINDINGS.items()
        }
        for counter in self._findings.values():
            # From the first scrape on, so that an increase is seen.
            for pool in settings.pools:
                counter.labels(pool)
        self._surveys = Counter(
            "swarm_scaler_surveys",
            "Surveys of a broker, by result.",
            ["broker", "result"],
            registry=self.registry,
        )
        self._given_back = Counter(
            "swarm_scaler_given_back",
            "Messages taken from vanished workers: returned to their queue, or dead letters.",
            ["broker", "result"],
            registry=self.registry,
        )
        self._surveyed_at: dict[str, float] = {}
        survey_age = self._gauge(
            "survey_age_seconds",
            "Time since the last survey that was answered; NaN before the first.",
            "broker",
        )
        for broker in settings.served_brokers:
            for result in ("returned", "dead"):
                self._given_back.labels(broker, result)
            survey_age.labels(broker).set_function(partial(self._survey_age_s, broker))
        self._requests = self._gauge(
            "broker_requests",
            "Requests to a metered broker in this period, by component.",
            "broker",
            "component",
        )
        self._budget = self._gauge(
            "broker_budget_requests",
            "Of a metered broker: its limit, what is used of it, what is expected by the reset.",
            "broker",
            "figure",
        )
        self._takes_tasks = self._gauge(
            "broker_takes_tasks", "0 while the rest of its budget is for what it has.", "broker"
        )
        self._turn_seconds = Histogram(
            "swarm_scaler_turn_seconds",
            "Time a turn takes, with all that it tells.",
            buckets=_TURN_BUCKETS_S,
            registry=self.registry,
        )

    def configure(self, settings: Settings) -> None:
        """Go on with other hosts."""
        self._discovery.configure(settings)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"swarm_scaler_{name}", text, labels, registry=self.registry)

    def turned(self, seconds: float) -> None:
        self._turn_seconds.observe(seconds)

    def show(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._waiting.clear()
        for pool, decision in outcome.decisions.items():
            waiting = outcome.observation.waiting[pool]
            if isinstance(waiting, int):
                self._waiting.labels(pool).set(waiting)
            self._desired.labels(pool).set(decision.desired)
            self._wanted.labels(pool).set(decision.wanted)
            self._decisions.labels(pool, decision.direction, decision.cause).inc()
        for broker, condition in outcome.observation.brokers.items():
            self._broker_up.labels(broker).set(condition.down_for_s is None)
        for host, report in outcome.observation.hosts.items():
            self._show_host(host, report)
        for host in self._shown.keys() - outcome.observation.hosts.keys():
            self._show_host(host, Unknown("gone"))
            self._host_up.remove(host)
            del self._shown[host]
        for result in outcome.results:
            action = result.action
            came_to = "failed" if result.error else "done"
            if self._dry_run:
                came_to = "dry-run"
            self._actions.labels(action.pool, action.host, action.verb, came_to).inc()
            if came_to == "done":
                self._show_drain(action, outcome.observation)
        overdue = Counts(pool for _, pool, _ in outcome.overdue)
        for pool in outcome.decisions:
            self._overdue.labels(pool).set(overdue[pool])

    def _show_drain(self, action: Action, observation: Observation) -> None:
        match action:
            case Drain():
                self._drains.labels(action.pool, "begun").inc()
            case Undrain():
                self._drains.labels(action.pool, "cancelled").inc()
            case Stop():
                self._drains.labels(action.pool, "completed").inc()
                instance = observation.instance(action.key)
                if instance is not None and instance.draining is not None:
                    seconds = observation.now - instance.draining.since
                    self._drain_seconds.labels(action.pool).observe(seconds)

    def _show_host(self, host: str, report: HostReport | Unknown) -> None:
        """Set what has changed: a thousand hosts have some thousands of gauges."""
        shown = report.instances if isinstance(report, HostReport) else None
        known, before = self._shown.get(host, (_NEVER, Counts()))
        if known is shown:
            return
        counts = Counts((instance.pool, instance.state) for instance in shown or ())
        for pool, state in before.keys() - counts.keys():
            self._instances.remove(pool, host, state)
        for (pool, state), count in counts.items():
            self._instances.labels(pool, host, state).set(count)
        self._host_up.labels(host).set(shown is not None)
        self._shown[host] = (shown, counts)

    def found(self, finding: Finding) -> None:
        self._findings[finding.event].labels(finding.pool).inc()

    def show_budgets(self, meters: Mapping[str, Meter]) -> None:
        # Who has asked nothing since the reset has no figure; last month's would stay.
        self._requests.clear()
        for broker, meter in meters.items():
            for component, requests in meter.used.items():
                self._requests.labels(broker, component).set(requests)
            seen = meter.outlook
            expected = nan if seen.expected is None else seen.expected
            figures = {"limit": seen.limit, "used": seen.used, "expected": expected}
            for figure, value in figures.items():
                self._budget.labels(broker, figure).set(value)
            self._takes_tasks.labels(broker).set(not meter.is_closed)

    def surveyed(self, broker: str, given: Sequence[GivenBack]) -> None:
        self._surveyed_at[broker] = time.monotonic()
        self._surveys.labels(broker, "done").inc()
        for each in given:
            self._given_back.labels(broker, "returned").inc(each.returned)
            self._given_back.labels(broker, "dead").inc(each.dead)

    def survey_failed(self, broker: str) -> None:
        self._surveys.labels(broker, "failed").inc()

    def _survey_age_s(self, broker: str) -> float:
        at = self._surveyed_at.get(broker)
        return nan if at is None else time.monotonic() - at

    async def serve(self, address: str, port: int) -> None:
        """Answer scrapes.

        Raises:
            ConfigError: the address is not ours or the port is taken.
        """
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/sd", self._targets)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, address, port).start()
        except (OSError, UnicodeError) as exc:
            await self.close()
            # A name that is none in the DNS is no OSError, and has no strerror.
            reason = exc.strerror if isinstance(exc, OSError) else exc
            raise ConfigError(
                [
                    Problem(
                        "SWARM_METRICS_ADDRESS and scaler.metrics_port",
                        f"{address} port {port}",
                        f"an address of this host and a free port ({reason})",
                    )
                ]
            ) from exc

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, _request: web.Request) -> web.Response:
        body = generate_latest(self.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _targets(self, _request: web.Request) -> web.Response:
        return web.Response(text=self.targets(), content_type="application/json")

    def targets(self) -> str:
        """Every running instance as Prometheus' http_sd wants it; none before the first turn."""
        return self._discovery.text(
            {} if self._outcome is None else self._outcome.observation.hosts
        )

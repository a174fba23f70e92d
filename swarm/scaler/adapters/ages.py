"""How old what the scaler goes by is, computed when Prometheus asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from swarm.scaler.clock import since_boot
from swarm.scaler.model import HostReport, Outcome
from swarm.scaler.orders import Order


class Ages(Collector):
    """Of the last word of each queue and host, and of operators' orders."""

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = since_boot,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic, self._clock = monotonic, clock
        self._seen_at: dict[tuple[str, str], float] = {}
        self._orders: Collection[Order] = ()

    def saw(self, outcome: Outcome, orders: Collection[Order]) -> None:
        observation = outcome.observation
        for pool, waiting in observation.waiting.items():
            if isinstance(waiting, int):
                self._seen_at["queue", pool] = observation.now
        for host, report in observation.hosts.items():
            if isinstance(report, HostReport):
                self._seen_at["host", host] = observation.seen_at(host)
        # Of what is no longer in config.yaml nothing will ever be known again.
        subjects = {"queue": observation.waiting, "host": observation.hosts}
        self._seen_at = {
            (signal, subject): at
            for (signal, subject), at in self._seen_at.items()
            if subject in subjects[signal]
        }
        self._orders = orders

    def collect(self) -> Iterable[GaugeMetricFamily]:
        signals = GaugeMetricFamily(
            "swarm_scaler_signal_age_seconds",
            "Time since a pool's queue length, or a host's instances, were known.",
            labels=("signal", "subject"),
        )
        now = self._monotonic()
        for labels, seen_at in self._seen_at.items():
            signals.add_metric(labels, max(0.0, now - seen_at))
        yield signals
        orders = GaugeMetricFamily(
            "swarm_scaler_order_age_seconds",
            "Time since an operator's order that holds was given.",
            labels=("kind", "subject"),
        )
        for order in self._orders:
            age_s = max(0.0, self._clock() - order.given_at)
            orders.add_metric((order.kind, order.subject), age_s)
        yield orders

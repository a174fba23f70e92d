"""The instances that Prometheus is to scrape, in the format of its `http_sd`."""

from __future__ import annotations

import json
from collections.abc import Mapping

from swarm.scaler.model import HostReport, Instance, InstanceState, Unknown
from swarm.settings import Settings


class Targets:
    """Every instance that runs on a host which answers.

    Prometheus asks every few seconds, so what is said of a host is made anew only when that
    changed: with ten thousand instances it would cost more than the turns in between.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hosts: dict[str, tuple[tuple[Instance, ...], str]] = {}

    def configure(self, settings: Settings) -> None:
        """Go on with other hosts."""
        self._settings = settings
        self._hosts = {}

    def text(self, hosts: Mapping[str, HostReport | Unknown]) -> str:
        """The document, of a turn's answers."""
        self._hosts = {
            name: self._host(name, report.instances)
            for name, report in hosts.items()
            if isinstance(report, HostReport) and name in self._settings.hosts
        }
        return f"[{', '.join(text for _, text in self._hosts.values() if text)}]"

    def _host(self, name: str, instances: tuple[Instance, ...]) -> tuple[tuple[Instance, ...], str]:
        known = self._hosts.get(name)
        if known is not None and known[0] is instances:
            return known
        running = (
            each
            for each in instances
            if each.pool in self._settings.pools and each.state is not InstanceState.FAILED
        )
        return instances, ", ".join(json.dumps(self._target(each)) for each in running)

    def _target(self, instance: Instance) -> dict[str, object]:
        host = self._settings.hosts[instance.host]
        address = "127.0.0.1" if host.is_local else host.address
        port = self._settings.pools[instance.pool].metrics_port_base + instance.number
        return {
            "targets": [f"[{address}]:{port}" if ":" in address else f"{address}:{port}"],
            "labels": {
                "pool": instance.pool,
                "host": instance.host,
                "unit": f"celery-{instance.pool}@{instance.number}",
            },
        }

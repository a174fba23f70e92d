"""Processor time of a scaler's turn without its adapters: picture in, decisions and plan out.

    python -m bench.turns --hosts 1000

Hosts and broker are in memory and answer at once. In each turn one instance of a tenth of the hosts
has changed. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from statistics import median

from swarm.delivery.survey import Attention
from swarm.scaler.model import (
    BrokerCondition,
    DrainReading,
    HostReport,
    Instance,
    InstanceState,
    Unknown,
)
from swarm.scaler.ports import BrokerSide, CommandError
from swarm.scaler.reconcile import Reconciler
from swarm.settings import Settings

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_PLACES = 20


class _Queues:
    """A `QueueSource` and a `BrokerView`."""

    def __init__(self) -> None:
        self.length = 0
        self.stretch = 1.0

    def condition(self) -> BrokerCondition:
        return BrokerCondition(reached=True)

    def attend(self, attention: Attention) -> None: ...

    def quiet(self) -> frozenset[str]:
        return frozenset()

    def piled(self) -> Mapping[str, float]:
        return {}

    async def waiting(
        self,
        queues: Sequence[str],
        *,
        max_age_s: float = 0.0,  # noqa: ARG002 - the port's
    ) -> Mapping[str, int | Unknown]:
        return dict.fromkeys(queues, self.length)


class _Host:
    """A `UnitManager` whose instances are all at work."""

    def __init__(self, name: str, instances: int, now: float) -> None:
        self._name = name
        self.starts = 0
        self._report = HostReport(
            tuple(
                Instance(
                    "browser",
                    number,
                    name,
                    InstanceState.BUSY,
                    state_since=now - 600,
                    active=1,
                    pid=number,
                    service_time_s=5.0,
                    boot_time_s=1.0,
                )
                for number in range(1, instances + 1)
            ),
            memory_available_mb=16_000,
        )

    def change(self) -> None:
        first, *others = self._report.instances
        changed = replace(first, tasks_ended=first.tasks_ended + 1)
        self._report = replace(self._report, instances=(changed, *others))

    async def report(self) -> HostReport | Unknown:
        return self._report

    async def start(self, _pool: str, _number: int) -> None:
        self.starts += 1

    async def drain(self, pool: str, number: int) -> DrainReading:
        raise CommandError(f"{pool}-{number} is busy")

    async def undrain(self, _pool: str, _number: int) -> None: ...

    async def stop(self, _pool: str, _number: int, _proved: DrainReading) -> None: ...


async def _measure(hosts: int, instances: int, turns: int) -> dict[str, float]:
    now = 10_000.0
    names = [f"h{number:04}" for number in range(hosts)]
    settings = Settings.model_validate(
        {
            "pools": {
                "browser": {
                    "task_type": "browser",
                    "queues": ["browser"],
                    "max_instances": hosts * _PLACES,
                    "metrics_port_base": 9100,
                }
            },
            "hosts": {name: {"address": name, "max_instances": _PLACES} for name in names},
        }
    )
    units = {name: _Host(name, instances, now) for name in names}
    queues = _Queues()
    reconciler = Reconciler(settings, {"primary": BrokerSide(queues, queues)}, units)
    spent_ms = []
    for turn in range(turns):
        now += 2
        for name in names[turn % 10 :: 10]:
            units[name].change()
        began = time.process_time()
        await reconciler.turn(now, at=_AT)
        spent_ms.append(1000 * (time.process_time() - began))
    queues.length = hosts
    began = time.process_time()
    await reconciler.turn(now + 2, at=_AT)
    return {
        "hosts": hosts,
        "instances": hosts * instances,
        "turn_p50_ms": round(median(spent_ms[1:]), 1),
        "turn_most_ms": round(max(spent_ms[1:]), 1),
        "burst_turn_ms": round(1000 * (time.process_time() - began), 1),
        "burst_starts": sum(host.starts for host in units.values()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.turns", description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--instances", type=int, default=10, help="on each host")
    parser.add_argument("--turns", type=int, default=60)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(_measure(options.hosts, options.instances, options.turns))))


if __name__ == "__main__":
    main()

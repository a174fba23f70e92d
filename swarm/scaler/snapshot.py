"""status.json: a whole turn as plain values.

It is written in every turn, so what is said of a host is made anew only when that changed: with a
thousand of them it would cost more than all the rest of a turn.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from swarm.scaler.metering import Meter
from swarm.scaler.model import HostReport, Instance, Outcome, Unknown

_FIELDS = tuple(field.name for field in fields(Instance))


class Snapshots:
    """Remembers what it wrote of each host."""

    def __init__(self) -> None:
        self._hosts: dict[str, tuple[object, str]] = {}

    def text(
        self, outcome: Outcome, meters: Mapping[str, Meter] | None = None, *, written_at: float
    ) -> str:
        """The document; `written_at` is Unix time.

        Moments (`..._since`) are on the clock of which `now` is the time of the turn.
        """
        head = json.dumps(_head(outcome, meters or {}, written_at=written_at))
        self._hosts = {
            name: self._host(name, report) for name, report in outcome.observation.hosts.items()
        }
        hosts = ", ".join(f"{json.dumps(name)}: {text}" for name, (_, text) in self._hosts.items())
        return f'{head[:-1]}, "hosts": {{{hosts}}}}}'

    def _host(self, name: str, report: HostReport | Unknown) -> tuple[object, str]:
        shown = report.instances if isinstance(report, HostReport) else report
        known = self._hosts.get(name)
        if known is not None and known[0] is shown:
            return known
        if isinstance(report, Unknown):
            document = {"answers": False, "reason": report.reason, "instances": []}
        else:
            instances = [{f: getattr(each, f) for f in _FIELDS} for each in report.instances]
            document = {"answers": True, "instances": instances}
        return shown, json.dumps(document, default=asdict)


def _head(outcome: Outcome, meters: Mapping[str, Meter], *, written_at: float) -> dict[str, Any]:
    """All but the hosts."""
    brokers = {
        name: {
            "answers": condition.down_for_s is None,
            "gives_way": name in outcome.observation.confirmed_down,
            "down_for_s": condition.down_for_s,
            "reason": condition.reason,
            **({"budget": _budget(meters[name])} if name in meters else {}),
        }
        for name, condition in outcome.observation.brokers.items()
    }
    pools: dict[str, Any] = {}
    for name, decision in outcome.decisions.items():
        waiting = outcome.observation.waiting[name]
        pools[name] = {
            **asdict(decision),
            "waiting": waiting if isinstance(waiting, int) else None,
        }
    return {
        "version": 1,
        "written_at": written_at,
        "now": outcome.observation.now,
        "brokers": brokers,
        "pools": pools,
    }


def _budget(meter: Meter) -> dict[str, Any]:
    seen = meter.outlook
    return {
        "used": seen.used,
        "limit": seen.limit,
        "resets_at": seen.resets_at.isoformat(),
        "per_hour": None if seen.per_hour is None else round(seen.per_hour, 1),
        "expected": seen.expected,
        "exhausted_at": None if seen.exhausted_at is None else seen.exhausted_at.isoformat(),
        "takes_tasks": not meter.is_closed,
        "requests_per_task": round(meter.requests_per_task, 1),
        "by_component": dict(meter.used),
    }

"""One host as its `swarm-unitctl watch` tells it, line by line.

Only what changed is parsed; every other instance stays the value that it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from swarm.scaler.adapters.systemd import parse_instance, parse_memory_mb, parse_pressures
from swarm.scaler.model import HostReport, Instance
from swarm.unit_entry import PROTOCOL_VERSION

#: More than a host of 99 instances takes, each with the longest word that is passed on.
LONGEST_LINE = 2 * 2**20
_MOST_INSTANCES = 1000
#: How far two monotonic clocks may go apart in a second: kernels slew each by up to 500 ppm.
_DRIFT = 0.001

_Key = tuple[str, int]


class HostClock:
    """Turns moments of a host's clock into moments of ours.

    A line comes later than it was written, never earlier. So the least that lines have taken so
    far is the best estimate of how the clocks compare, and a line that takes longer shows its age.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._at = 0.0

    def ours(self, moment: float, *, at: float) -> float:
        """When a line was written, by our clock, that says `moment` and came `at`."""
        offset = at - moment
        if self._offset is not None:
            offset = min(offset, self._offset + _DRIFT * (at - self._at))
        self._offset, self._at = offset, at
        return moment + offset


class Lines:
    """Cuts output into lines."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, output: bytes) -> list[bytes]:
        """The lines that are complete.

        Raises:
            ValueError: one is longer than `LONGEST_LINE`.
        """
        self._rest += output
        if b"\n" not in output:
            lines = []
        else:
            *lines, rest = bytes(self._rest).split(b"\n")
            self._rest = bytearray(rest)
        if max(map(len, [*lines, self._rest])) > LONGEST_LINE:
            raise ValueError("a line too long")
        return lines


class Picture:
    """What the lines so far add up to; `report` is None before the first."""

    def __init__(self, host: str, *, report_max_age_s: float) -> None:
        self._host = host
        self._report_max_age_s = report_max_age_s
        self._clock = HostClock()
        self._next = 0
        self._instances: dict[_Key, Instance] = {}
        self.report: HostReport | None = None
        self.looked = 0
        """The number of the last look that was asked for and is in it."""

    def tell(self, line: bytes, *, at: float) -> bool:
        """Add a line that came at this moment; whether it is worth a turn.

        Raises:
            one of `MALFORMED`: it is not understood.
        """
        document = json.loads(line)
        if self._next == 0 and document["version"] != PROTOCOL_VERSION:
            version = document["version"]
            raise ValueError(f"protocol version {version!r}, expected {PROTOCOL_VERSION}")
        if document["sequence"] != self._next:
            raise ValueError(f"line {document['sequence']!r}, expected {self._next}")
        now = float(document["now"])
        seen_at = self._clock.ours(now, at=at)
        instances = self._changed(document, now=now, at=seen_at)
        is_news = self._next == 0 or any(
            _gist(self._instances.get(key)) != _gist(instances.get(key))
            for key in self._instances.keys() | instances.keys()
            if self._instances.get(key) is not instances.get(key)
        )
        if self.report is None or instances is not self._instances:
            shown = tuple(instances[key] for key in sorted(instances))
        else:
            shown = self.report.instances
        self._instances = instances
        self.report = HostReport(
            shown, parse_memory_mb(document), seen_at, **parse_pressures(document)
        )
        self.looked = int(document.get("look", self.looked))
        self._next += 1
        return is_news

    def _changed(
        self, document: Mapping[str, Any], *, now: float, at: float
    ) -> dict[_Key, Instance]:
        """The instances with the line's; the same mapping when it has none."""
        if "instances" not in document and "gone" not in document:
            return self._instances
        instances = dict(self._instances)
        for pool, number in document.get("gone", ()):
            instances.pop((pool, number), None)
        for entry in document.get("instances", ()):
            instance = parse_instance(
                entry, host=self._host, now=now, at=at, report_max_age_s=self._report_max_age_s
            )
            if instance is None:
                instances.pop((entry["pool"], entry["number"]), None)
            else:
                instances[instance.pool, instance.number] = instance
        if len(instances) > _MOST_INSTANCES:
            raise ValueError(f"{len(instances)} instances")
        return instances


def _gist(instance: Instance | None) -> tuple[object, ...] | None:
    """What of an instance is worth a turn when it changes."""
    if instance is None:
        return None
    is_drained = instance.draining is not None and instance.draining.is_idle
    return (instance.state, instance.waits, is_drained)

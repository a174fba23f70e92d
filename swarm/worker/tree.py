"""What an instance and all it started use, measured when Prometheus asks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from swarm.browse.processes import private_bytes

PARTS = ("worker", "driver", "browser")


class TreeCollector(Collector):
    """Memory, processor time and processes of this process's tree.

    Below Celery's own processes (`celery_levels`: one, with prefork two) come Playwright's drivers,
    and below those the browsers.
    """

    def __init__(self, *, celery_levels: int) -> None:
        self._celery_levels = celery_levels
        self._lock = threading.Lock()
        self._cpu_seconds = 0.0
        self._last_sum = 0.0

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not measure to know the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        memory, processes = Counter[str](), Counter[str]()
        cpu_seconds = 0.0
        for process, level in _tree(psutil.Process()):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            # Those of descendants that ended are in their parents' times of children.
            cpu_seconds += sum(
                (times.user, times.system, times.children_user, times.children_system)
            )
            part = PARTS[max(0, min(level - self._celery_levels + 1, len(PARTS) - 1))]
            memory[part] += private_bytes(process.pid)
            processes[part] += 1
        memory_family = GaugeMetricFamily(
            "swarm_tree_memory_bytes",
            "Resident memory of the instance's processes, without what they share.",
            labels=["part"],
        )
        processes_family = GaugeMetricFamily(
            "swarm_tree_processes", "Processes of the instance.", labels=["part"]
        )
        for part in PARTS:
            memory_family.add_metric([part], memory[part])
            processes_family.add_metric([part], processes[part])
        yield memory_family
        yield processes_family
        yield CounterMetricFamily(
            "swarm_tree_cpu_seconds",
            "Processor time of the instance's processes, ended ones included.",
            value=self._add(cpu_seconds),
        )

    def _add(self, cpu_seconds: float) -> float:
        """A counter never falls, also when a process dies whose parent does not wait for it."""
        with self._lock:
            self._cpu_seconds += max(0.0, cpu_seconds - self._last_sum)
            self._last_sum = cpu_seconds
            return self._cpu_seconds


def _tree(root: psutil.Process) -> Iterator[tuple[psutil.Process, int]]:
    """Every process with its distance from the root."""
    levels = {root.pid: 0}
    yield root, 0
    # A parent comes before its children.
    for process in root.children(recursive=True):
        try:
            level = levels.get(process.ppid(), 0) + 1
        except psutil.Error:
            continue
        levels[process.pid] = level
        yield process, level

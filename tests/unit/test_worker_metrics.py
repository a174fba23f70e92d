"""What an instance counts of what its processes tell."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest
from celery.exceptions import Retry

from swarm.browse.errors import ErrorCode, job_error
from swarm.worker.metrics import WorkerMetrics
from swarm.worker.task_watch import error_code
from swarm.worker.telemetry import Message
from swarm.worker.tree import TreeCollector
from tests.builders import make_status
from tests.loopback import wait_until


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_ends_are_told_apart_by_code() -> None:
    metrics = WorkerMetrics()
    for cause in ("DNS", "DNS", "DEADLINE"):
        message = Message("task", 1, label="failure", cause=cause, task="browser.run", seconds=2)
        metrics.count(message)
    labels = {"task": "browser.run", "outcome": "failure"}
    assert value(metrics, "swarm_tasks_total", **labels, code="DNS") == 2
    assert value(metrics, "swarm_tasks_total", **labels, code="DEADLINE") == 1
    assert value(metrics, "swarm_task_seconds_sum", task="browser.run") == 6


def test_a_task_that_never_began_has_no_length() -> None:
    metrics = WorkerMetrics()
    metrics.count(Message("task", 1, label="revoked", task="browser.run"))
    assert value(metrics, "swarm_tasks_total", task="browser.run", outcome="revoked", code="") == 1
    assert value(metrics, "swarm_task_seconds_count", task="browser.run") is None


def test_stages_come_from_a_short_list() -> None:
    metrics = WorkerMetrics()
    metrics.count(Message("task", 1, label="success", task="t", seconds=1, stages={"queue": 3}))
    metrics.count(Message("job", 1, stages={"launch": 0.1, "total": 1, "surprise": 1}))
    for stage, seconds in (("queue", 3), ("launch", 0.1), ("total", 1), ("surprise", None)):
        assert value(metrics, "swarm_stage_seconds_sum", stage=stage) == seconds


def test_bytes_and_browser_events_add_up() -> None:
    metrics = WorkerMetrics()
    for _ in range(2):
        metrics.count(Message("job", 1, count=700, artifact_bytes=80))
    metrics.count(Message("browser", 1, label="retired", cause="age"))
    metrics.count(Message("browser", 1, label="page-crashed", cause="memory"))
    assert value(metrics, "swarm_received_bytes_total") == 1400
    assert value(metrics, "swarm_artifact_bytes_total") == 160
    assert value(metrics, "swarm_browser_events_total", event="retired", cause="age") == 1
    assert value(metrics, "swarm_page_crashes_total", cause="memory") == 1


def test_contexts_of_a_process_that_is_gone_are_not_open() -> None:
    metrics = WorkerMetrics()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        metrics.count(Message("contexts", os.getpid(), count=1))
        metrics.count(Message("contexts", child.pid, count=2))
        metrics.show(make_status())
        assert value(metrics, "swarm_browser_contexts") == 3
        child.kill()
    metrics.show(make_status())
    assert value(metrics, "swarm_browser_contexts") == 1


def test_a_tree_is_told_by_its_parts_and_keeps_the_time_of_the_dead() -> None:
    collector = TreeCollector(celery_levels=1)
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    grand = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}]); input()"
    with subprocess.Popen([sys.executable, "-c", grand], stdin=subprocess.PIPE) as child:
        wait_until(lambda: psutil.Process(child.pid).children(), what="the grandchild")
        seen = samples(collector)
        assert seen["swarm_tree_processes", "browser"] >= 1
        assert seen["swarm_tree_memory_bytes", "driver"] > 1_000_000
        assert seen["swarm_tree_memory_bytes", "worker"] > 1_000_000
        wait_until(lambda: not psutil.Process(child.pid).children(), what="its end")
        # By now nothing of it is left but what its parent was told when it waited for it.
        later = samples(collector)
        assert later["swarm_tree_cpu_seconds_total", ""] >= 0.3
        child.kill()
    after = samples(collector)["swarm_tree_cpu_seconds_total", ""]
    assert after >= later["swarm_tree_cpu_seconds_total", ""]


def samples(collector: TreeCollector) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("part", "")): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_processor_time_never_falls() -> None:
    collector = TreeCollector(celery_levels=1)
    before = samples(collector)["swarm_tree_cpu_seconds_total", ""]
    collector._last_sum += 100
    assert samples(collector)["swarm_tree_cpu_seconds_total", ""] == before
    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    assert samples(collector)["swarm_tree_cpu_seconds_total", ""] > before


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (job_error(ErrorCode.DNS, "no", stage="navigation"), "DNS"),
        (Retry("again", exc=job_error(ErrorCode.PAGE_CRASH, "no", stage="x")), "PAGE_CRASH"),
        (ValueError("no"), "OTHER"),
        (None, "OTHER"),
    ],
)
def test_codes_come_from_a_short_list(error: object, code: str) -> None:
    assert error_code(error) == code

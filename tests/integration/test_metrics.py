"""What Prometheus reads off a real instance: of all its processes, those that are gone too."""

from __future__ import annotations

from typing import Any

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.stage import Stage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import wait_until


def page(stage: Stage, path: str = "/slow?ms=0", **sections: Any) -> dict[str, Any]:
    return {"url": stage.site.url(path), "actions": [{"kind": "screenshot"}], **sections}


def read(worker: WorkerProcess) -> dict[tuple[str, tuple[str, ...]], float]:
    """Values by name and the values of the labels, in the order of the labels' names."""
    return {
        (
            sample.name,
            tuple(text for _, text in sorted(sample.labels.items()) if text),
        ): sample.value
        for family in text_string_to_metric_families(worker.metrics())
        for sample in family.samples
    }


def test_an_instance_tells_all_of_its_processes(stage: Stage) -> None:
    """Two pool processes, each replaced after its second task."""
    worker = stage.run_ready(CELERY_CONCURRENCY="2", CELERY_MAX_TASKS="2")
    ids = [stage.client.submit("browser", page(stage)) for _ in range(8)]
    results = [stage.client.result(task_id, wait_s=50) for task_id in ids]
    assert [result.state for result in results] == ["done"] * 8
    click = {"kind": "click", "selector": "#absent", "timeout_s": 1}
    failed = stage.client.submit("browser", page(stage, steps=[click]))
    assert stage.client.result(failed, wait_s=50).state == "failed"

    def ended() -> float:
        told = read(worker)
        return sum(v for (name, _), v in told.items() if name == "swarm_tasks_total")

    wait_until(lambda: ended() == 9, timeout_s=10, what="nine ends")
    told = read(worker)
    assert told["swarm_tasks_total", ("success", "browser.run")] == 8
    code = next(labels[0] for name, labels in told if "failure" in labels)
    assert code == "SELECTOR_TIMEOUT"
    for stage_name, count in (
        ("queue", 9),
        ("launch", 9),
        ("navigation", 9),
        ("steps", 1),
        ("actions", 8),
        ("total", 9),
    ):
        assert told["swarm_stage_seconds_count", (stage_name,)] == count, stage_name
    launched = told["swarm_browser_events_total", ("launched",)]
    assert launched >= 5, "two at first, and one for each process that was replaced"
    assert told["swarm_received_bytes_total", ()] > 8 * 50
    stored = sum(a["bytes"] for r in results for a in r.value["artifacts"])
    assert told["swarm_artifact_bytes_total", ()] >= stored
    wait_until(lambda: read(worker)["swarm_browser_contexts", ()] == 0, what="no context")

    family = [psutil.Process(worker.process.pid)]
    family += family[0].children(recursive=True)
    counted = sum(v for (name, _), v in read(worker).items() if name == "swarm_tree_processes")
    assert abs(counted - len(family)) <= 4, "browsers come and go"
    assert read(worker)["swarm_tree_memory_bytes", ("driver",)] > 20e6
    assert read(worker)["swarm_tree_memory_bytes", ("browser",)] > 20e6
    now = sum(sum(process.cpu_times()[:2]) for process in family if process.is_running())
    assert read(worker)["swarm_tree_cpu_seconds_total", ()] > now


def test_a_result_says_how_long_its_task_waited(stage: Stage) -> None:
    task_ids = [stage.client.submit("browser", page(stage, "/slow?ms=600")) for _ in range(2)]
    stage.run_ready()
    waits = []
    for task_id in task_ids:
        timings = stage.client.result(task_id, wait_s=30).value["timings_s"]
        assert timings["total"] >= timings["navigation"]
        waits.append(timings["queue"])
    assert 0 < waits[0] < waits[1]


def test_why_browsers_go_is_counted(stage: Stage) -> None:
    stage.write_config(browser={"uses_before_retirement": 1})
    worker = stage.run_ready(CELERY_POOL="threads", CELERY_MAX_TASKS="2")
    for _ in range(4):
        task_id = stage.client.submit("browser", page(stage))
        assert stage.client.result(task_id, wait_s=30).state == "done"
    wait_until(
        lambda: read(worker).get(("swarm_browser_events_total", ("uses", "retired"))), what="it"
    )
    for browser in worker.browsers():
        browser.kill()
    wait_until(
        lambda: read(worker).get(("swarm_browser_events_total", ("disconnect", "lost"))), what="it"
    )

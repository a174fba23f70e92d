"""`swarm cancel` on the controller reaches a task on whichever host runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lab.commands import LabError

if TYPE_CHECKING:
    from tests.lab.conftest import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]


def slow(lab: Lab) -> str:
    """A task of half a minute."""
    page = {
        "html": "<p>Lanterns.</p>",
        "steps": [{"kind": "wait_for", "ms": 25_000, "timeout_s": 30}],
        "limits": {"deadline_s": 60},
    }
    return lab.client.submit("browser", page)


def where(lab: Lab, task_id: str) -> str:
    """The host whose journal has begun to tell of the task."""
    for host in ("worker1", "worker2"):
        if lab.on(host, f"journalctl -q -o cat SWARM_TASK_ID={task_id} || true"):
            return host
    return ""


def test_a_running_task_is_cancelled_from_the_controller(lab: Lab) -> None:
    task_id = slow(lab)
    lab.until(lambda: where(lab, task_id) != "", "an instance takes the task")
    said = lab.on("control", f"swarm cancel {task_id}")
    host = where(lab, task_id)
    assert said.startswith(f"{task_id}: cancelled while running on celery-browser@")
    assert said.endswith(f" on {host}")
    result = lab.client.result(task_id)
    assert (result.state, result.error is not None) == ("failed", True)
    assert "CANCELLED" in str(result.error)
    told = lab.on(host, f"journalctl -q -o cat SWARM_TASK_ID={task_id}").splitlines()
    assert sum("received" in line for line in told) == 1
    assert sum(line.startswith(f"browser.run[{task_id}] failure") for line in told) == 1
    with pytest.raises(LabError, match="already ended: failed"):
        lab.on("control", f"swarm cancel {task_id}")


def test_a_task_that_waits_is_cancelled_and_an_unknown_one_is_not(lab: Lab) -> None:
    running = [slow(lab) for _ in range(20)]
    last = running[-1]
    try:
        said = lab.on("control", f"swarm cancel {last}")
        assert said == f"{last}: cancelled while queued; it will not be started"
        with pytest.raises(LabError, match="no such task"):
            lab.on("control", "swarm cancel never-issued")
    finally:
        for task_id in running[:-1]:
            lab.on("control", f"swarm cancel {task_id} 2>&1 || true")
    results = lab.results(running)
    ends = {str(result.error).split(":", 1)[0] for result in results}
    assert ends <= {"PermanentJobError", "TaskRevokedError"}


def test_every_instance_answers_the_scalers_user_and_no_other(lab: Lab) -> None:
    glance = lab.look()
    host = next(name for name, count in glance.running.items() if count)
    ask = "/opt/swarm/current/bin/swarm-unitctl cancel never-issued"
    answer = json.loads(lab.on(host, f"runuser -u swarm-scaler -- {ask}"))
    assert [i for i in answer["instances"] if i.get("outcome") != "absent"] == []
    assert answer["instances"]
    assert json.loads(lab.on(host, f"runuser -u nobody -- {ask}"))["instances"] == []

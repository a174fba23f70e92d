"""What breaks on real hosts, and what must not follow from it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]


def test_killing_the_scaler_in_a_burst_loses_no_task_and_stops_no_instance(lab: Lab) -> None:
    since = lab.now()
    ids = lab.submit_pages(120)
    lab.until(lambda: lab.look().total >= 3, "the pool grows")
    show_pid = "systemctl show -P MainPID swarm-scaler.service"
    killed = lab.on("control", show_pid)
    lab.on("control", "systemctl kill --signal=KILL swarm-scaler.service")
    lab.until(lambda: lab.on("control", show_pid) not in {"0", killed}, "systemd restarts it")

    results = lab.results(ids)

    assert [result for result in results if result.state != "done"] == []
    assert lab.instance_stops(since) == []
    # The journal does tell of stops: those of idle instances, now.
    lab.until(lambda: len(lab.instance_stops(since)) >= 2, "the pool shrinks", timeout_s=150)


def all_idle(lab: Lab) -> bool:
    """As the scaler sees the browser pool."""
    status = json.loads(lab.on("control", "swarm status --json"))
    instances = [each for host in status["hosts"].values() for each in host["instances"]]
    return {each["state"] for each in instances if each["pool"] == "browser"} <= {"idle", "stopped"}


def test_flower_away_is_said_once_and_nothing_is_stopped(lab: Lab) -> None:
    lab.results(lab.submit_pages(40))
    # What a busy pool does not know is news once more when it is idle.
    lab.until(lambda: all_idle(lab), "every instance is idle")
    running = lab.look().total
    assert running > 1
    since = lab.now()
    lab.on("control", "systemctl stop flower@primary.service")
    try:
        # Longer than the lab's windows: with a queue known to be empty instances would stop now.
        time.sleep(45)
        assert lab.look().total == running
        assert lab.look().waiting is None
        told = lab.journal("control", "swarm-scaler", since)
        assert sum("browser" in line and "queue length unknown" in line for line in told) == 1
        assert lab.instance_stops(since) == []
        status = lab.on("control", "systemctl show -P StatusText swarm-scaler.service")
        assert "holding: queue length unknown" in status
    finally:
        lab.on("control", "systemctl start flower@primary.service")


def test_a_worker_host_away_is_unknown_and_the_others_go_on(lab: Lab) -> None:
    since = lab.now()
    lab.podman("pause", "swarm-lab-worker2")
    try:
        lab.until(
            lambda: any(
                "worker2 does not answer" in line
                for line in lab.journal("control", "swarm-scaler", since)
            ),
            "the scaler says that worker2 is away",
        )
        worker1_before = lab.look().running["worker1"]
        ids = lab.submit_pages(30)
        lab.until(lambda: lab.look().running["worker1"] > worker1_before, "worker1 takes over")
    finally:
        lab.podman("unpause", "swarm-lab-worker2")
    results = lab.results(ids)
    assert [result for result in results if result.state != "done"] == []
    told = lab.journal("control", "swarm-scaler", since)
    assert sum("worker2 does not answer" in line for line in told) == 1
    assert any("worker2 answers again" in line for line in told)


def test_a_wrong_variable_fails_the_unit_once_with_every_error(lab: Lab) -> None:
    dropin = "/run/systemd/system/celery-analysis@7.service.d"
    lab.on(
        "worker1",
        f"mkdir -p {dropin} && printf '[Service]\\nEnvironment=CELERY_CONCURRENCY=many "
        f"CELERY_POOL=forks\\n' > {dropin}/wrong.conf && systemctl daemon-reload",
    )
    since = lab.now()
    try:
        lab.on("worker1", "systemctl start celery-analysis@7.service || echo refused")
        time.sleep(5)
        show = "systemctl show -p ActiveState,NRestarts,ExecMainStatus celery-analysis@7"
        assert set(lab.on("worker1", show).split()) == {
            "ActiveState=failed",
            "NRestarts=0",
            "ExecMainStatus=2",
        }
        told = "\n".join(lab.journal("worker1", "celery-analysis@7", since))
        assert "CELERY_CONCURRENCY: got 'many', expected a whole number" in told
        assert "CELERY_POOL: got 'forks', expected one of prefork, solo, threads" in told
    finally:
        lab.on(
            "worker1",
            f"rm -r {dropin} && systemctl daemon-reload && "
            "systemctl reset-failed celery-analysis@7.service",
        )


def test_stopping_an_instance_lets_its_task_finish(lab: Lab) -> None:
    glance = lab.look()
    host = next(name for name, count in glance.running.items() if count)
    unit = lab.on(
        host, "systemctl list-units --no-legend --plain --state=active 'celery-browser@*'"
    ).split()[0]
    task_id = lab.client.submit(
        "browser",
        {"url": "http://pages.lab:8080/slow?ms=6000", "actions": [{"kind": "text"}]},
    )
    lab.until(
        lambda: "1 busy of 1" in lab.on(host, f"systemctl show -P StatusText {unit}"),
        "the instance takes the task",
    )
    started = time.monotonic()
    lab.on(host, f"systemctl stop {unit}")
    assert time.monotonic() - started > 2
    assert lab.client.result(task_id, wait_s=1).state == "done"

"""Workers on a metered broker: what they say they asked is what the service counts."""

from __future__ import annotations

import signal
from collections import deque

import pytest

from tests.integration.hosted_stage import HostedStage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import wait_until


@pytest.fixture
def metered(hosted: HostedStage) -> HostedStage:
    hosted.delivery.stage.write_config(brokers={"primary": {"budget": {"limit": "500000/month"}}})
    return hosted


def more_said(hosted: HostedStage, *workers: WorkerProcess) -> int:
    """Than the service has counted."""
    said: int = sum(worker.status()["requests"] for worker in workers)
    return said - hosted.service.used


def agrees(hosted: HostedStage, *workers: WorkerProcess) -> bool:
    return more_said(hosted, *workers) == 0


def settled(hosted: HostedStage, worker: WorkerProcess) -> int:
    """What is said more, once it has been the same for as long as both status and bills take."""
    readings: deque[int] = deque(maxlen=60)

    def is_still() -> bool:
        readings.append(more_said(hosted, worker))
        return len(readings) == readings.maxlen and len(set(readings)) == 1

    wait_until(is_still, what="rest")
    return readings[-1]


def ten_tasks(hosted: HostedStage) -> None:
    results = [hosted.delivery.send("note", str(at)) for at in range(10)]
    assert [each.get(timeout=20) for each in results] == [str(at) for at in range(10)]


@pytest.mark.parametrize("celery_pool", ["prefork", "solo", "threads"])
def test_an_instance_says_what_it_has_asked(metered: HostedStage, celery_pool: str) -> None:
    worker = metered.worker(CELERY_POOL=celery_pool)
    wait_until(lambda: agrees(metered, worker), what="agreement at rest")
    ten_tasks(metered)
    wait_until(lambda: agrees(metered, worker), what="agreement after ten tasks")


@pytest.mark.parametrize("celery_pool", ["prefork", "solo", "threads"])
def test_a_request_that_a_lost_connection_swallowed_is_counted(
    metered: HostedStage, celery_pool: str
) -> None:
    """Nobody knows whether it arrived. What comes after it is counted as before."""
    worker = metered.worker(CELERY_POOL=celery_pool)
    ten_tasks(metered)
    wait_until(lambda: agrees(metered, worker), what="agreement at rest")
    cut = metered.service.state()["connections"]
    metered.service.restart()
    ten_tasks(metered)
    more = settled(metered, worker)
    assert 0 <= more <= cut, "at most one on each connection"
    ten_tasks(metered)
    wait_until(lambda: more_said(metered, worker) == more, what="the same difference")


def test_two_instances_say_what_each_has_asked(metered: HostedStage) -> None:
    workers = [metered.worker(number) for number in (1, 2)]
    results = [metered.delivery.send("note", str(at)) for at in range(20)]
    for each in results:
        each.get(timeout=20)
    wait_until(lambda: agrees(metered, *workers), what="agreement")


def test_without_a_budget_nothing_is_counted(hosted: HostedStage) -> None:
    worker = hosted.worker()
    assert "requests" not in worker.status()


def test_without_events_a_task_costs_three_requests_less(metered: HostedStage) -> None:
    def cost(**settings: object) -> float:
        metered.delivery.stage.write_config(brokers={"primary": settings})
        worker = metered.worker()
        for at in range(3):
            metered.delivery.send("note", f"first {at}").get(timeout=20)
        before = metered.service.used
        for at in range(10):
            metered.delivery.send("note", str(at)).get(timeout=20)
        wait_until(lambda: metered.delivery.held() == 0, what="rest")
        spent = metered.service.used - before
        worker.process.send_signal(signal.SIGTERM)
        worker.wait_exit()
        return spent / 10

    with_events = cost(events=True)
    without = cost(events=False)
    assert with_events - without == pytest.approx(3, abs=0.5)

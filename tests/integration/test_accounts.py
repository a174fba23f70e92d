"""What everybody asks of a metered broker, as the scaler counts it and as the service does."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from swarm.brokers import Brokers, counting, parse_broker
from swarm.celery_app import celery_configuration
from swarm.client import Client
from swarm.delivery.app import Brokerage, DeliveryCelery
from swarm.errors import BrokerAwayError
from tests.integration.flower_process import Flower
from tests.integration.hosted_stage import HostedStage
from tests.integration.scaler_process import Start
from tests.loopback import wait_until
from tests.stub_systemctl import StubSystemctl

PAYLOAD = {"html": "<p>x</p>"}


class Producer:
    """Submits to the service, and tells it what it asks."""

    def __init__(self, hosted: HostedStage) -> None:
        broker = parse_broker("primary", hosted.url, variable="REDIS_URL")
        brokerage = Brokerage(Brokers(broker), metered=frozenset({"primary"}))
        self.app = DeliveryCelery(
            "producer", set_as_current=False, read_brokerage=lambda: brokerage
        )
        self.app.config_from_object(celery_configuration(hosted.delivery.stage.settings, broker))
        self.client = Client(self.app)
        counting.requests.forget()

    def run(self) -> None:
        task_id = self.client.submit("analysis", PAYLOAD)
        assert self.client.result(task_id, wait_s=20).state == "done"


@pytest.fixture
def producer(hosted: HostedStage) -> Iterator[Producer]:
    producer = Producer(hosted)
    yield producer
    producer.app.close()
    counting._told_places.clear()


@pytest.fixture
def flower(hosted: HostedStage) -> Iterator[Flower]:
    stage = hosted.delivery.stage
    flower = Flower(stage, environ={"REDIS_URL": hosted.url, "SWARM_BROKER": "primary"})
    stage.write_config(brokers={"primary": {"budget": {"limit": "500000/month"}}})
    flower.start()
    yield flower
    flower.stop()


def budget_of(state: dict[str, Any]) -> dict[str, Any]:
    budget: dict[str, Any] = state["brokers"]["primary"]["budget"]
    return budget


def test_the_scalers_accounts_are_those_of_the_service(
    hosted: HostedStage,
    flower: Flower,
    producer: Producer,
    start: Start,
    systemctl: StubSystemctl,
) -> None:
    data = hosted.delivery.stage.directory / "data"
    data.mkdir()
    # Producers' figure comes with surveys.
    hosted.delivery.stage.write_config(
        scaler={"data_directory": str(data), "survey_interval_s": 10}
    )
    worker = hosted.worker()
    systemctl.add("celery-analysis@1.service", main_pid=worker.process.pid)
    scaler = start(flower, reads_status=True, REDIS_URL=hosted.url)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        producer.run()
        time.sleep(0.2)
    # Flower's metrics are read every 30 s.
    wait_until(
        lambda: (
            budget_of(scaler.state())["used"] == pytest.approx(hosted.service.used, rel=0.05)
            and "flower" in budget_of(scaler.state())["by_component"]
        ),
        timeout_s=40,
        what="agreement with the service",
    )
    seen = budget_of(scaler.state())
    assert set(seen["by_component"]) == {"workers", "producers", "scaler", "flower"}
    assert seen["takes_tasks"] is True
    # A restart goes on counting.
    scaler.process.send_signal(signal.SIGTERM)
    assert scaler.process.wait(20) == 0
    for _ in range(20):
        producer.run()
    document = json.loads((data / "requests-primary.json").read_text())
    assert sum(document["ledger"]["used"].values()) == pytest.approx(seen["used"], rel=0.05)


def test_at_the_end_of_the_budget_producers_are_sent_away_and_what_is_queued_is_done(
    hosted: HostedStage,
    flower: Flower,
    producer: Producer,
    start: Start,
    systemctl: StubSystemctl,
) -> None:
    stage = hosted.delivery.stage
    (data := stage.directory / "data").mkdir()
    stage.write_config(
        scaler={"data_directory": str(data)},
        brokers={"primary": {"budget": {"limit": "3000/month", "used_so_far": 2000}}},
    )
    hosted.service.use(2000)
    hosted.service.set(limit=3000)
    queued = [producer.client.submit("analysis", PAYLOAD) for _ in range(100)]
    scaler = start(flower, reads_status=True, REDIS_URL=hosted.url)
    wait_until(lambda: not budget_of(scaler.state())["takes_tasks"], timeout_s=20)
    assert "the primary broker takes no more tasks" in scaler.log
    refusal = r"nothing was queued: .* for the tasks that are queued"
    with pytest.raises(BrokerAwayError, match=refusal):
        producer.client.submit("analysis", PAYLOAD)
    worker = hosted.worker()
    systemctl.add("celery-analysis@1.service", main_pid=worker.process.pid)
    with stage.redis.connect() as behind:
        results = [f"celery-task-meta-{task_id}" for task_id in queued]
        wait_until(lambda: behind.exists(*results) == len(queued), timeout_s=60, what="all ends")
    assert hosted.service.used < 3000
    assert "limit exceeded" not in worker.log

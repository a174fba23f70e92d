"""A producer and a worker for each broker: tasks go on while the primary is away, and come back."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lab.hosted import HostedRedis
from swarm.brokers import Brokers, parse_broker
from swarm.celery_app import celery_configuration
from swarm.delivery import ids
from swarm.delivery.app import Brokerage, DeliveryCelery
from tests.integration.hosted_stage import HostedStage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import RedisServer, free_port_base, wait_until

#: 100 tasks a minute.
PAUSE_S = 0.6
PATIENCE_S = 3.0

#: A timeout, cut connections, and an error reply. Each takes a minute, as the way back does.
STRIKES: dict[str, Callable[[HostedRedis], None]] = {
    "silent": lambda service: service.reach("silent"),
    "cut": lambda service: service.set(cuts=100_000),
    "limited": lambda service: service.reach_limit(),
}


@dataclass
class Producer:
    """Submits at a steady pace on a thread of its own."""

    app: DeliveryCelery
    words: list[str] = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    blocked_s: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def last_broker(self) -> str:
        return ids.broker_of(self.results[-1].id)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            word = f"task {len(self.words)}"
            self.words.append(word)
            begun = time.monotonic()
            self.results.append(self.app.send_task("analysis.note", args=[word]))
            self.blocked_s.append(time.monotonic() - begun)


@pytest.fixture
def fallback(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "fallback").mkdir()
    with RedisServer(tmp_path / "fallback") as server:
        yield server


@pytest.fixture
def two_brokers(hosted: HostedStage, fallback: RedisServer) -> HostedStage:
    own = {
        "broker": "fallback",
        "task_type": "analysis",
        "queues": ["analysis"],
        "metrics_port_base": free_port_base(),
    }
    browser = {
        **own,
        "task_type": "browser",
        "queues": ["browser"],
        "metrics_port_base": free_port_base(),
    }
    hosted.delivery.stage.write_config(
        pools={"analysis-fallback": own, "browser-fallback": browser}
    )
    return hosted


@pytest.fixture
def producer(two_brokers: HostedStage, fallback: RedisServer) -> Iterator[Producer]:
    settings = two_brokers.delivery.stage.settings
    brokers = Brokers(
        parse_broker("primary", two_brokers.url, variable="REDIS_URL"),
        parse_broker("fallback", fallback.url, variable="REDIS_FALLBACK_URL"),
    )
    assert brokers.fallback is not None
    brokerage = Brokerage(brokers, celery_configuration(settings, brokers.fallback))
    app = DeliveryCelery("producer", set_as_current=False, read_brokerage=lambda: brokerage)
    app.config_from_object(celery_configuration(settings, brokers.primary))
    producer = Producer(app)
    yield producer
    producer.stop()
    app.close()


@pytest.fixture
def workers(two_brokers: HostedStage, fallback: RedisServer) -> dict[str, WorkerProcess]:
    stage = two_brokers.delivery.stage
    return {
        "primary": two_brokers.worker(),
        "fallback": stage.run_ready(
            "analysis-fallback",
            module="tests.integration.delivery_tasks",
            REDIS_FALLBACK_URL=fallback.url,
            RUNS=str(two_brokers.delivery.runs_path),
        ),
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("strike", STRIKES)
def test_tasks_go_on_and_come_back_by_themselves(
    two_brokers: HostedStage,
    producer: Producer,
    workers: dict[str, WorkerProcess],
    strike: str,
) -> None:
    service, delivery = two_brokers.service, two_brokers.delivery
    producer.start()
    wait_until(lambda: len(delivery.runs()) >= 5, what="work on the primary")
    STRIKES[strike](service)
    wait_until(lambda: producer.last_broker == "fallback", timeout_s=10, what="the failover")
    at = len(producer.results)
    wait_until(lambda: len(producer.results) >= at + 20, timeout_s=20, what="20 tasks meanwhile")
    # Its tasks are done meanwhile, and its handles need no primary.
    assert producer.results[at].get(timeout=10) == producer.words[at]
    service.heal()
    wait_until(lambda: producer.last_broker == "primary", timeout_s=60, what="the return")
    at = len(producer.results)
    wait_until(lambda: len(producer.results) >= at + 5, timeout_s=20, what="5 tasks afterwards")
    producer.stop()

    for word, result in zip(producer.words, producer.results, strict=True):
        assert result.get(timeout=40) == word
    slow = [seconds for seconds in producer.blocked_s if seconds > 1]
    assert max(producer.blocked_s) <= PATIENCE_S
    assert len(slow) <= 1
    runs = delivery.runs()
    assert set(runs) == set(producer.words)
    # One task was cut off in its publication, and may have been done on both.
    assert len(runs) - len(set(runs)) <= 1
    assert all(each.process.poll() is None for each in workers.values())


def test_the_command_line_goes_over_too(
    two_brokers: HostedStage, fallback: RedisServer, workers: dict[str, WorkerProcess]
) -> None:
    def swarm(*words: str) -> subprocess.CompletedProcess[str]:
        return two_brokers.delivery.stage.swarm(
            *words,
            REDIS_URL=two_brokers.url,
            REDIS_FALLBACK_URL=fallback.url,
            REDIS_FALLBACK_ENABLED="true",
        )

    two_brokers.service.reach("refused")
    submitted = swarm("submit", "analysis", '{"html": "<p>x</p>"}')
    assert submitted.returncode == 0, submitted.stderr
    task_id = submitted.stdout.strip()
    assert ids.broker_of(task_id) == "fallback"
    assert "the primary broker is down: " in submitted.stderr
    # What the fallback has is found without the primary, which is still away.
    found = swarm("result", task_id, "--wait", "20")
    assert (found.returncode, json.loads(found.stdout)["state"]) == (0, "done")
    assert swarm("cancel", task_id).stderr == f"{task_id}: already ended: done\n"
    listed = swarm("dead", "list")
    assert (listed.returncode, listed.stdout) == (0, "")
    assert listed.stderr.startswith("swarm: not seen: the broker rediss://127.0.0.1")
    shown = swarm("brokers")
    assert shown.returncode == 3
    assert "fallback: ok after" in shown.stdout
    # Where nobody says that there is a fallback there is none.
    alone = two_brokers.delivery.stage.swarm(
        "submit", "analysis", '{"html": "<p>x</p>"}', REDIS_URL=two_brokers.url
    )
    assert alone.returncode == 3
    assert "nothing was queued" in alone.stderr

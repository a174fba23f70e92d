"""Scale-downs of real workers under live load, by the daemon itself: no task is interrupted.

systemd is a stub, and what it would do with its units is done here: real prefork workers.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Self

import pytest

from tests.integration.delivery_stage import DeliveryStage
from tests.integration.flower_process import Flower
from tests.integration.scaler_process import ScalerProcess, Start
from tests.integration.stage import Stage
from tests.integration.units import RunningUnits
from tests.loopback import wait_until
from tests.stub_systemctl import StubSystemctl

#: So short that an instance is drained as soon as it has nothing to do for a moment.
SHORT_WINDOWS = {"stabilisation_s": 1.0, "reserve": 0.0, "target_wait_s": 1.0}


@pytest.fixture
def units(stage: Stage, systemctl: StubSystemctl) -> Iterator[RunningUnits]:
    stage.write_config(scaler=SHORT_WINDOWS)
    pools = {"analysis": {**stage_pool(stage), "min_instances": 1, "max_instances": 4}}
    stage.write_config(pools=pools)
    delivery = DeliveryStage(stage)
    with RunningUnits(delivery, systemctl) as units:
        yield units
    delivery.app.close()


def stage_pool(stage: Stage) -> dict[str, Any]:
    pool = stage.settings.pools["analysis"]
    return {
        "task_type": "analysis",
        "queues": ["analysis"],
        "metrics_port_base": pool.metrics_port_base,
        "expected_service_time_s": 0.5,
    }


class Load:
    """Bursts that want every instance, and between them a task now and then."""

    def __init__(self, delivery: DeliveryStage, seed: int) -> None:
        self.results: list[Any] = []
        self.words: list[str] = []
        self._delivery = delivery
        self._chance = random.Random(seed)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.is_set():
            for _ in range(16):
                self._send()
            calm_until = time.monotonic() + self._chance.uniform(8, 12)
            while time.monotonic() < calm_until and not self._end.is_set():
                self._end.wait(self._chance.uniform(0.05, 0.8))
                self._send()

    def _send(self) -> None:
        word = f"task {len(self.words)}"
        self.words.append(word)
        seconds = self._chance.choice([0.05, 0.2, 0.6])
        self.results.append(self._delivery.send("note", word, seconds))


def done_once(units: RunningUnits, load: Load) -> None:
    """Each task has run once, and its result is there."""
    assert [result.get(timeout=60) for result in load.results] == load.words
    assert Counter(units.delivery.runs()) == dict.fromkeys(load.words, 1)
    interrupted = [stop for stop in units.stopped if stop.tasks or stop.drain != "idle"]
    assert interrupted == []


def draining(units: RunningUnits) -> list[int]:
    """Numbers of instances that say that they drain."""
    return [
        worker.status()["number"]
        for worker in units.workers()
        if worker.status().get("drain") is not None
    ]


@pytest.mark.timeout(300)
def test_scale_downs_under_live_load_interrupt_nothing(
    units: RunningUnits, own_flower: Flower, start: Start
) -> None:
    seed = random.randrange(1_000_000)
    scaler = start(own_flower, reads_status=True)
    with Load(units.delivery, seed) as load:
        wait_until(
            lambda: len(units.stopped) >= 12, timeout_s=200, what=f"12 scale-downs, seed {seed}"
        )
    done_once(units, load)
    wait_until(lambda: drains(scaler, "completed") == len(units.stopped), what="the count")
    assert drains(scaler, "begun") >= drains(scaler, "completed") + drains(scaler, "cancelled")
    assert "drain celery-analysis@" in scaler.log


def drains(scaler: ScalerProcess, result: str) -> float:
    name = f'swarm_scaler_drains_total{{pool="analysis",result="{result}"}} '
    [line] = [line for line in scaler.get("/metrics").splitlines() if line.startswith(name)]
    return float(line.removeprefix(name))


@pytest.mark.timeout(300)
def test_a_scaler_that_is_killed_in_the_middle_of_drains_loses_nothing(
    units: RunningUnits, own_flower: Flower, start: Start
) -> None:
    seed = random.randrange(1_000_000)
    kills = 0
    with Load(units.delivery, seed) as load:
        while kills < 4:
            scaler = start(own_flower, reads_status=True)
            wait_until(lambda: draining(units), timeout_s=60, what=f"a drain, seed {seed}")
            scaler.process.send_signal(signal.SIGKILL)
            scaler.process.wait()
            scaler.close()
            kills += 1
        start(own_flower, reads_status=True)
        before = len(units.stopped)
        wait_until(
            lambda: len(units.stopped) >= before + 3, timeout_s=60, what=f"stops, seed {seed}"
        )
    done_once(units, load)

"""The daemon beside another one, and killed at any moment: real processes, a stub for systemd."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from tests.integration.delivery_stage import DeliveryStage
from tests.integration.flower_process import Flower
from tests.integration.scaler_process import ScalerProcess, Start
from tests.integration.stage import Stage
from tests.integration.units import RunningUnits
from tests.loopback import wait_until
from tests.stub_systemctl import StubSystemctl


def test_a_second_scaler_says_who_runs_and_touches_nothing(
    stage: Stage, systemctl: StubSystemctl, start: Start
) -> None:
    scaler = start(None)
    second = stage.swarm("scaler", "run", **systemctl.own_environ)
    assert second.returncode == 4
    assert f"another scaler runs here: process {scaler.process.pid} on " in second.stderr
    assert "Traceback" not in second.stderr
    turns = scaler.notify.told.count("WATCHDOG=1")
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") > turns, what="another turn")
    scaler.process.kill()
    scaler.process.wait()
    scaler.close()
    assert "READY=1" in start(None).notify.told


@pytest.fixture
def units(stage: Stage, systemctl: StubSystemctl) -> Iterator[RunningUnits]:
    """Six that run; three are to be kept."""
    pools = {
        "analysis": {**stage.pool("analysis"), "min_instances": 3, "max_instances": 6},
        "browser": stage.pool("browser"),
    }
    stage.write_config(pools=pools, scaler={"stabilisation_s": 0.0})
    for number in range(1, 7):
        systemctl.add(f"celery-analysis@{number}.service", active_state="activating")
    delivery = DeliveryStage(stage)
    with RunningUnits(delivery, systemctl) as units:
        wait_until(lambda: len(units.workers()) == 6, timeout_s=60, what="six workers")
        yield units
    delivery.app.close()


@pytest.mark.timeout(240)
def test_a_kill_at_any_moment_is_repaired_by_the_next_turn(
    units: RunningUnits, systemctl: StubSystemctl, own_flower: Flower, start: Start
) -> None:
    """Two of six are busy for good; the others are idle, and one may be kept."""
    rng = random.Random(6)
    for _ in range(2):
        units.delivery.send("note", "for good", 600)
    busy = wait_until(lambda: names(units, busy=True), what="two that are busy")
    kills = 0
    scaler = start(own_flower, reads_status=True)
    while len(names(units)) > 3:
        # One is stopped once it is proved, after some five seconds.
        time.sleep(rng.uniform(0.0, 10.0))
        kill(scaler)
        kills += 1
        scaler = start(own_flower, reads_status=True)
    # What is lost in between is started again.
    for name in names(units) - busy:
        systemctl.remove(name)
    for _ in range(5):
        time.sleep(rng.uniform(0.0, 1.0))
        kill(scaler)
        scaler = start(own_flower, reads_status=True)
    wait_until(lambda: len(names(units)) == 3, what="the minimum")
    assert kills >= 1
    assert busy == names(units, busy=True)
    assert units.delivery.runs() == ["for good"] * 2
    stops = [call for call in systemctl.calls if " stop " in f" {call} "]
    assert stops
    assert not any(name in call for call in stops for name in busy)


def names(units: RunningUnits, *, busy: bool = False) -> set[str]:
    """Units that run; with `busy`, both that have a task, once there are both."""
    told = [worker.status() for worker in units.workers()]
    found = {f"celery-analysis@{each['number']}.service" for each in told if each["active"] >= busy}
    return found if not busy or len(found) == 2 else set()


def kill(scaler: ScalerProcess) -> None:
    scaler.process.kill()
    scaler.process.wait()
    scaler.close()

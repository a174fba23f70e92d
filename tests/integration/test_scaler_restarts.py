"""The daemon beside another one, and killed at any moment: real processes, a stub for systemd."""

from __future__ import annotations

import random
import time

import pytest

from tests.integration.flower_process import Flower
from tests.integration.scaler_process import ScalerProcess, Start
from tests.integration.stage import Stage
from tests.integration.status_files import StatusFiles
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


@pytest.mark.timeout(240)
def test_a_kill_at_any_moment_is_repaired_by_the_next_turn(
    stage: Stage, systemctl: StubSystemctl, flower: Flower, start: Start
) -> None:
    """Two of six are busy for good; the others are idle, and one may be kept."""
    rng = random.Random(6)
    stage.write_config(
        pools={
            "browser": {**stage.pool("browser"), "min_instances": 3, "max_instances": 6},
        },
        scaler={"stabilisation_s": 0.0},
    )
    reports = StatusFiles(stage)
    for number in range(1, 7):
        systemctl.add(f"celery-browser@{number}.service")
        reports.say(number, busy=number <= 2)
    kills = 0
    with reports.kept():
        scaler = start(flower, reads_status=True)
        while len(units(systemctl)) > 3:
            # An instance is stopped in every turn once they are proved, after some five seconds.
            time.sleep(rng.uniform(0.0, 10.0))
            kill(scaler)
            kills += 1
            scaler = start(flower, reads_status=True)
        # What is lost in between is started again.
        for number in range(3, 7):
            if f"celery-browser@{number}.service" in units(systemctl):
                systemctl.remove(f"celery-browser@{number}.service")
        for _ in range(5):
            time.sleep(rng.uniform(0.0, 1.0))
            kill(scaler)
            scaler = start(flower, reads_status=True)
        wait_until(lambda: len(units(systemctl)) == 3, what="the minimum")
    assert kills >= 1
    assert {"celery-browser@1.service", "celery-browser@2.service"} <= units(systemctl)
    stops = [call for call in systemctl.calls if " stop " in f" {call} "]
    assert stops
    assert not any("celery-browser@1." in call or "celery-browser@2." in call for call in stops)


def kill(scaler: ScalerProcess) -> None:
    scaler.process.kill()
    scaler.process.wait()
    scaler.close()


def units(systemctl: StubSystemctl) -> set[str]:
    return {path.name for path in (systemctl.state / "units").iterdir()}

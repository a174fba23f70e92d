"""Operators and the daemon: the real commands, the real socket, restarts in between."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.delivery_stage import DeliveryStage
from tests.integration.flower_process import Flower
from tests.integration.scaler_process import ScalerProcess, Start
from tests.integration.stage import Stage
from tests.integration.units import RunningUnits
from tests.loopback import wait_until
from tests.stub_systemctl import StubSystemctl


@pytest.fixture
def units(stage: Stage, systemctl: StubSystemctl) -> Iterator[RunningUnits]:
    """Two that run, and are the minimum."""
    pools = {
        "analysis": {**stage.pool("analysis"), "min_instances": 2, "max_instances": 2},
        "browser": stage.pool("browser"),
    }
    stage.write_config(pools=pools)
    for number in (1, 2):
        systemctl.add(f"celery-analysis@{number}.service", active_state="activating")
    delivery = DeliveryStage(stage)
    with RunningUnits(delivery, systemctl) as units:
        wait_until(lambda: len(units.workers()) == 2, what="two workers")
        yield units
    delivery.app.close()


def told(stage: Stage, *words: str) -> list[str]:
    ran = stage.swarm(*words)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.splitlines()


def turns(scaler: ScalerProcess, count: int) -> None:
    """Let it do so many more."""
    before = scaler.notify.told.count("WATCHDOG=1")
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= before + count, what="turns")


def starts(systemctl: StubSystemctl) -> list[str]:
    return [call for call in systemctl.calls if "start --no-block" in call]


def stops(systemctl: StubSystemctl) -> list[str]:
    return [call for call in systemctl.calls if "stop --no-block" in call]


def test_orders_are_answered_at_once_hold_in_the_next_turn_and_survive_a_kill(
    stage: Stage, systemctl: StubSystemctl, start: Start
) -> None:
    scaler = start(None)
    said = told(stage, "scaler", "pause-out", "--for", "30m")
    assert said[0].startswith("scaling out is paused by ")
    assert said[1].startswith("nothing is started, not even a minimum")
    held = told(stage, "scaler", "set", "browser", "2", "--for", "1h30m")
    assert held[0].startswith("browser is held at 2 by ")
    assert held[1] == "0 run, 2 more are started, as fast as the hosts may"
    assert held[2].startswith("but scaling out is paused: not before ")
    turns(scaler, 3)
    assert starts(systemctl) == []

    scaler.process.kill()
    scaler.process.wait()
    scaler.close()
    scaler = start(None)
    assert f"order: {said[0]}" in scaler.log
    turns(scaler, 3)
    assert starts(systemctl) == []
    assert any(said[0] in line for line in scaler.notify.told if line.startswith("STATUS="))
    assert told(stage, "scaler", "status")[:2] == [said[0], held[0]]
    assert held[0] in told(stage, "status")

    assert told(stage, "scaler", "resume") == [f"no longer: {said[0]}"]
    wait_until(lambda: len(starts(systemctl)) == 2, what="the starts")
    turns(scaler, 3)
    assert len(starts(systemctl)) == 2
    assert told(stage, "scaler", "set", "browser", "auto") == [f"no longer: {held[0]}"]


@pytest.mark.timeout(120)
def test_a_drained_host_is_emptied_and_stays_so_over_a_restart(
    stage: Stage, systemctl: StubSystemctl, own_flower: Flower, start: Start, units: RunningUnits
) -> None:
    task = units.delivery.send("note", "long", 20)
    busy = wait_until(lambda: with_a_task(units), what="the task")
    scaler = start(own_flower, reads_status=True)
    wait_until(lambda: scaler.state()["pools"]["analysis"]["running"] == 2, what="two")
    said = told(stage, "scaler", "drain", "here")
    assert "1 idle: stopped once they have proved it, within some 8 s" in said
    assert any(line.startswith("1 not idle: each is stopped after its task") for line in said)
    wait_until(lambda: len(stops(systemctl)) == 1, what="the stop")
    assert not stops(systemctl)[0].endswith(f"celery-analysis@{busy}.service")
    scaler.process.send_signal(signal.SIGTERM)
    assert scaler.process.wait(10) == 0
    scaler.close()
    scaler = start(own_flower, reads_status=True)
    wait_until(lambda: len(stops(systemctl)) == 2, timeout_s=40, what="the last stop")
    assert task.get(timeout=5) == "long"
    assert units.delivery.runs() == ["long"]
    turns(scaler, 3)
    assert starts(systemctl) == []
    assert len(told(stage, "scaler", "undrain", "here")) == 1
    wait_until(lambda: len(starts(systemctl)) == 2, what="the starts")


def with_a_task(units: RunningUnits) -> int | None:
    """The instance's number."""
    told = [worker.status() for worker in units.workers()]
    return next((each["number"] for each in told if each["active"]), None)


def test_an_explanation_comes_from_the_running_scaler(
    stage: Stage, systemctl: StubSystemctl, flower: Flower, start: Start
) -> None:
    stage.client.submit("analysis", {"html": "<p>x</p>"})
    start(flower)
    wait_until(lambda: starts(systemctl), what="the start")
    lines = told(stage, "scaler", "explain", "analysis")
    assert lines[0].startswith("analysis: ")
    assert any(line.startswith("  need: ") for line in lines)
    headings = [line for line in told(stage, "scaler", "explain") if not line.startswith(" ")]
    assert [heading.partition(":")[0] for heading in headings] == ["analysis", "browser"]
    [line] = told(stage, "scaler", "explain", "analysis", "--json")
    assert json.loads(line)["pools"]["analysis"]["basis"]["limits"]["maximum"]["count"] == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["scaler", "drain", "nowhere"], "HOST: got 'nowhere', expected one of here"),
        (["scaler", "set", "browser", "99"], "N: got 99, expected at most 4"),
        (["scaler", "set", "browser", "many"], "'many' is neither a number nor auto"),
        (["scaler", "set", "lathe", "1"], "POOL: got 'lathe', expected one of"),
        (["scaler", "pause", "--for", "soon"], "'soon': expected a duration such as 30m"),
        (["scaler", "pause", "--for", "8d"], "for_s: got 691200.0, expected it to be less than"),
        (["scaler", "explain", "lathe"], "POOL: got 'lathe', expected one of"),
        (["instance", "pin", "here", "browser", "100"], "number: got 100"),
    ],
)
def test_bad_input_is_one_message_and_exit_2(
    shared_scaler: Stage, words: list[str], error: str
) -> None:
    ran = shared_scaler.swarm(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert error in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.fixture
def shared_scaler(stage: Stage, start: Start) -> Stage:
    start(None)
    return stage


@pytest.mark.parametrize(
    "words", [["scaler", "pause"], ["instance", "pin", "here", "browser", "1"]]
)
def test_without_a_scaler_it_is_exit_3(stage: Stage, words: list[str]) -> None:
    stage.write_config(scaler={"state_directory": str(stage.directory / "absent")})
    ran = stage.swarm(*words)
    assert ran.returncode == 3
    assert "no scaler answers at " in ran.stderr
    assert "is swarm-scaler.service active on this host?" in ran.stderr


def test_broken_orders_and_a_taken_socket_keep_no_scaler_from_its_work(
    stage: Stage, systemctl: StubSystemctl, start: Start
) -> None:
    (stage.directory / "scaler" / "orders.json").write_text("{", encoding="utf-8")
    (stage.directory / "state" / "control.sock").mkdir(parents=True)
    scaler = start(None)
    turns(scaler, 4)
    assert scaler.log.count("are not understood do not hold any more") == 1
    assert scaler.log.count("no control socket, operators do not reach the scaler") == 1
    [aside] = Path(stage.directory / "scaler").glob("orders.bad-*.json")
    assert aside.read_text(encoding="utf-8") == "{"
    ran = stage.swarm("scaler", "pause")
    assert ran.returncode == 3


def test_an_order_that_cannot_be_written_holds_and_says_so(stage: Stage, start: Start) -> None:
    scaler = start(None)
    # Root, as whom continuous integration runs, may write everywhere else.
    hindrance = stage.directory / "scaler" / "orders.tmp"
    hindrance.mkdir()
    said = told(stage, "scaler", "pause")
    assert said[-1].startswith("this holds now, but a restart of the scaler would not know it")
    turns(scaler, 3)
    assert scaler.log.count("not written (Is a directory)") == 1
    hindrance.rmdir()
    turns(scaler, 2)
    assert len(told(stage, "scaler", "status")) >= 2
    assert (stage.directory / "scaler" / "orders.json").exists()

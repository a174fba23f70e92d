"""The daemon's decisions: a dry run carries none out, a replay makes them anew."""

from __future__ import annotations

import json
import time

import pytest
import yaml

from swarm.scaler.decisions import parse
from tests.integration.flower_process import Flower
from tests.integration.scaler_process import Start
from tests.integration.stage import Stage
from tests.loopback import wait_until
from tests.stub_systemctl import StubSystemctl


def test_a_dry_run_does_nothing_and_says_what_it_would_do(
    stage: Stage, systemctl: StubSystemctl, flower: Flower, start: Start
) -> None:
    for _ in range(30):
        stage.client.submit("analysis", {"html": "<p>x</p>"})
    scaler = start(flower, dry_run=True)
    wait_until(lambda: "would start celery-analysis@1 on here" in scaler.log, what="the line")
    turns = scaler.notify.told.count("WATCHDOG=1")
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= turns + 4, what="four turns")
    assert scaler.log.count("would start celery-analysis@1 on here") == 1
    assert not any("--no-block" in call for call in systemctl.calls)
    assert any("STATUS=dry run: analysis 0 of 1" in line for line in scaler.notify.told)
    assert 'result="dry-run",verb="start"' in scaler.get("/metrics")
    assert stage.swarm("scaler", "run", **systemctl.own_environ).returncode == 4


@pytest.mark.timeout(180)
def test_recorded_decisions_are_replayed_with_another_configuration(
    stage: Stage, systemctl: StubSystemctl, flower: Flower, start: Start
) -> None:
    stage.write_config(scaler={"stabilisation_s": 1.0})
    stage.write_config(pools={"analysis": {**stage.pool("analysis"), "max_instances": 6}})
    file = stage.directory / "scaler" / "decisions.jsonl"
    scaler = start(flower)
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= 4, what="the warm-up")
    time.sleep(11)
    for _ in range(30):
        stage.client.submit("analysis", {"html": "<p>x</p>"})
    wait_until(lambda: '{"start":["here","analysis",1]}' in file.read_text(), what="the start")
    # In the middle of whatever it does then; the next one goes on in the same file.
    scaler.process.kill()
    scaler.process.wait()
    scaler.close()
    start(flower)
    records = [parse(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    assert {name for record in records for name in record.pools} == {"analysis", "browser"}

    new = stage.directory / "new.yaml"
    document = yaml.safe_load(stage.config.read_text(encoding="utf-8"))
    new.write_text(yaml.safe_dump(document), encoding="utf-8")
    same = stage.swarm("scaler", "replay", str(file), "--config", str(new), "--json")
    assert (same.returncode, same.stderr) == (0, "")
    pool = json.loads(same.stdout)["pools"]["analysis"]
    assert pool["then"] == pool["now"]
    assert pool["then"]["starts"] >= 1

    document["pools"]["analysis"]["max_instances"] = 1
    new.write_text(yaml.safe_dump(document), encoding="utf-8")
    other = stage.swarm("scaler", "replay", str(file), "--config", str(new))
    assert "limit: max_instances 1" in other.stdout
    assert "What this cannot know" in other.stdout

    document["pools"]["analysis"]["max_instances"] = 0
    new.write_text(yaml.safe_dump(document), encoding="utf-8")
    wrong = stage.swarm("scaler", "replay", str(file), "--config", str(new))
    assert wrong.returncode == 2
    assert "max_instances" in wrong.stderr

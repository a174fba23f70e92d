"""The daemon itself: real Flower, real swarm-unitctl, and a stub in systemd's place."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.builders import make_cgroups
from tests.integration.flower_process import Flower
from tests.integration.scaler_process import Start
from tests.integration.stage import Stage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import RedisServer, free_port, free_port_base, wait_until
from tests.stub_systemctl import StubSystemctl


def test_a_backlog_starts_instances_and_everything_tells_of_it(
    stage: Stage, systemctl: StubSystemctl, flower: Flower, start: Start
) -> None:
    for _ in range(30):
        stage.client.submit("analysis", {"html": "<p>x</p>"})
    systemctl.add("celery-browser@1.service")
    scaler = start(flower)
    wait_until(
        lambda: any("start --no-block celery-analysis@1" in call for call in systemctl.calls),
        what="the start",
    )
    wait_until(
        lambda: any(
            i["pool"] == "analysis" and i["state"] == "starting"
            for i in scaler.state()["hosts"]["here"]["instances"]
        ),
        what="the instance in status.json",
    )
    assert not any("stop" in call for call in systemctl.calls)
    assert "analysis: up 0 -> 1 (30 waiting" in scaler.log
    assert "start celery-analysis@1 on here" in scaler.log
    expected = "STATUS=analysis 1 of 1, waiting 30; browser 0 of 4, waiting 0"
    wait_until(lambda: any(expected in line for line in scaler.notify.told), what="STATUS")
    assert scaler.notify.told.count("WATCHDOG=1") > 1
    metrics = scaler.get("/metrics")
    assert 'swarm_scaler_queue_waiting{pool="analysis"} 30.0' in metrics
    assert 'swarm_scaler_host_up{host="here"} 1.0' in metrics
    units = [target["labels"]["unit"] for target in json.loads(scaler.get("/sd"))]
    assert units == ["celery-analysis@1", "celery-browser@1"]
    shown = stage.swarm("status").stdout
    assert "analysis: 1 running, 1 desired, 30 waiting" in shown
    scaler.process.send_signal(signal.SIGTERM)
    assert scaler.process.wait(10) == 0
    assert "STOPPING=1" in scaler.notify.told
    assert not any("stop" in call for call in systemctl.calls)


@pytest.mark.parametrize("problem", ["away", "refuses"])
def test_a_silent_flower_holds_everything_and_is_told_once(
    systemctl: StubSystemctl, flower: Flower, start: Start, problem: str
) -> None:
    for number in (1, 2, 3):
        systemctl.add(f"celery-browser@{number}.service")
    scaler = start(None) if problem == "away" else start(flower, auth="swarm:wrong")
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= 5, what="five turns")
    expected = "Flower is away" if problem == "away" else "Flower refused the password"
    assert scaler.log.count(f"browser: stay at 0 (holding: queue length unknown ({expected}") == 1
    assert all(" show " in call for call in systemctl.calls)


def test_a_systemd_that_does_not_answer_is_told_once(
    systemctl: StubSystemctl, flower: Flower, start: Start
) -> None:
    systemctl.fail("Failed to connect to bus")
    scaler = start(flower)
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= 5, what="five turns")
    sentence = "here does not answer, its instances are unknown: Failed to connect to bus"
    assert scaler.log.count(sentence) == 1
    assert "away: here" in "".join(scaler.notify.told)


def test_news_of_a_host_brings_a_turn_before_its_time(
    systemctl: StubSystemctl, start: Start
) -> None:
    scaler = start(None, interval_s=20.0)
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= 1, what="the first turn")
    systemctl.add("celery-browser@3.service")
    started = time.monotonic()
    wait_until(
        lambda: "celery-browser@3 on here runs but does not report" in scaler.log, what="the line"
    )
    assert time.monotonic() - started < 3
    turns = scaler.notify.told.count("WATCHDOG=1")
    time.sleep(3)
    assert scaler.notify.told.count("WATCHDOG=1") == turns, "turns without news"


def test_hosts_come_and_go_with_the_configuration(
    stage: Stage, systemctl: StubSystemctl, start: Start
) -> None:
    systemctl.add("celery-browser@1.service")
    scaler = start(None)
    document = yaml.safe_load(stage.config.read_text(encoding="utf-8"))
    document["hosts"]["far"] = {"address": "127.0.0.1", "port": free_port(), "max_instances": 2}

    def write(**changes: Any) -> None:
        scratch = stage.config.with_suffix(".new")
        scratch.write_text(yaml.safe_dump({**document, **changes}), encoding="utf-8")
        scratch.replace(stage.config)

    # Without a key there is no way to it.
    write()
    line = "the hosts stay as they were: scaler.ssh_key: got /etc/swarm/scaler/id_ed25519, expected"
    wait_until(lambda: line in scaler.log, what="the refusal")
    (stage.directory / "credentials" / "ssh-key").write_text("no key", encoding="utf-8")
    scaler.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "hosts added: far" in scaler.log, what="the new host")
    wait_until(lambda: "far does not answer" in scaler.log, what="that it is away")

    # One that is wrong changes nothing, and is told once.
    turns = scaler.notify.told.count("WATCHDOG=1")
    write(hosts={"far": {"address": "127.0.0.1", "max_instances": "two"}})
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= turns + 4, what="four turns")
    assert scaler.log.count("hosts.far.max_instances") == 1
    assert scaler.state()["hosts"].keys() == {"here", "far"}

    # One that was taken out stays as long as an instance runs there.
    write(hosts={"far": document["hosts"]["far"]}, flower={"timeout_s": 1.0})
    wait_until(lambda: "taken out, left as they are emptied: here" in scaler.log, what="the line")
    assert "flower changed, which takes effect when the scaler is restarted" in scaler.log
    turns = scaler.notify.told.count("WATCHDOG=1")
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= turns + 4, what="four turns")
    assert scaler.state()["hosts"]["here"]["answers"] is True
    systemctl.remove("celery-browser@1.service")
    wait_until(lambda: "left and empty: here" in scaler.log, what="its end")
    wait_until(lambda: scaler.state()["hosts"].keys() == {"far"}, what="the next turn")
    assert not any(" st" in call for call in systemctl.calls)


def test_a_host_with_another_name_goes_on_under_it(
    stage: Stage, systemctl: StubSystemctl, start: Start
) -> None:
    """And is not taken for two, of which one is to be emptied and the other needs its instance."""
    systemctl.add("celery-browser@1.service")
    scaler = start(None)
    document = yaml.safe_load(stage.config.read_text(encoding="utf-8"))
    document["hosts"] = {"home": document["hosts"]["here"]}
    scratch = stage.config.with_suffix(".new")
    scratch.write_text(yaml.safe_dump(document), encoding="utf-8")
    scratch.replace(stage.config)
    wait_until(lambda: "hosts that have another name now: here" in scaler.log, what="the line")
    turns = scaler.notify.told.count("WATCHDOG=1")
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= turns + 4, what="four turns")
    assert scaler.state()["hosts"].keys() == {"home"}
    assert "taken out" not in scaler.log
    assert all(" show " in call for call in systemctl.calls)


def instance_of(worker: WorkerProcess, systemctl: StubSystemctl, unit: str) -> None:
    """Let systemd show it as one that runs, with its processes in a cgroup of its own."""
    main = psutil.Process(worker.process.pid)
    family = [process.pid for process in (main, *main.children(recursive=True))]
    make_cgroups(systemctl.state.parent / "cgroups", f"/{unit}", *family)
    systemctl.add(unit, main_pid=main.pid, control_group=f"/{unit}")


def calls(stage: Stage) -> Counter[str]:
    """How often Redis ran each command."""
    with stage.redis.connect() as redis:
        rows: Any = redis.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): row["calls"] for name, row in rows.items()})


def test_at_rest_nobody_asks_and_a_task_for_a_pool_at_zero_is_answered_at_once(
    stage: Stage, systemctl: StubSystemctl, own_flower: Flower, start: Start
) -> None:
    # One that is kept, so that nobody asks whether it may be stopped.
    pools = yaml.safe_load(stage.config.read_text(encoding="utf-8"))["pools"]
    stage.write_config(pools={"analysis": {**pools["analysis"], "min_instances": 1}})
    instance_of(stage.run_ready("analysis"), systemctl, "celery-analysis@1.service")
    scaler = start(own_flower, reads_status=True)
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= 4, what="some turns")
    before = calls(stage)
    time.sleep(15)
    asked = calls(stage) - before
    # What events cost is Flower's and the worker's own matter.
    for name in ("publish", "info", "subscribe", "psubscribe"):
        del asked[name]
    # Thirty turns. One wait may end in them and make the worker look.
    assert asked["llen"] == 0, asked
    assert asked["evalsha"] <= 1, asked
    assert scaler.state()["pools"]["analysis"]["waiting"] == 0
    assert scaler.state()["pools"]["browser"]["waiting"] == 0

    stage.client.submit("browser", {"url": stage.site.url("/"), "actions": [{"kind": "text"}]})
    submitted = time.monotonic()
    wait_until(
        lambda: any("start --no-block celery-browser@1" in call for call in systemctl.calls),
        timeout_s=5,
        what="the start",
    )
    assert time.monotonic() - submitted < 4
    # A turn is told when it has ended.
    wait_until(lambda: "browser: up 0 -> 1 (1 waiting" in scaler.log, what="the line")


def test_the_backlog_of_a_busy_pool_is_flowers_word(
    stage: Stage, systemctl: StubSystemctl, own_flower: Flower, start: Start
) -> None:
    worker = stage.run_ready()
    instance_of(worker, systemctl, "celery-browser@1.service")
    scaler = start(own_flower, reads_status=True)
    page = {"url": stage.site.url("/slow?ms=8000"), "actions": [{"kind": "text"}]}
    for _ in range(6):
        stage.client.submit("browser", page)
    wait_until(
        lambda: (scaler.state()["pools"]["browser"]["waiting"] or 0) >= 4,
        timeout_s=8,
        what="the backlog",
    )
    assert calls(stage)["llen"] > 0


@pytest.mark.timeout(180)
def test_what_a_vanished_worker_held_is_done_by_another_within_75_s(
    stage: Stage, systemctl: StubSystemctl, flower: Flower, start: Start
) -> None:
    worker = stage.run_ready(SWARM_HOST="gone", INVOCATION_ID="a")
    visits = len(stage.site.visits)
    page = {"url": stage.site.url("/slow?ms=3000"), "actions": [{"kind": "text"}]}
    task_id = stage.client.submit("browser", page)
    wait_until(lambda: len(stage.site.visits) > visits, what="the visit")
    family = [psutil.Process(worker.process.pid)]
    family += family[0].children(recursive=True)
    vanished = time.monotonic()
    for process in family:
        process.suspend()
    scaler = start(flower)
    systemctl.fail("Connection timed out")
    wait_until(lambda: "given back" in scaler.log, timeout_s=90, what="giving back")
    assert time.monotonic() - vanished <= 75
    assert "holder=gone:browser:1:a returned=1 dead_letters=0" in scaler.log
    assert 'swarm_scaler_given_back_total{broker="primary",result="returned"} 1.0' in scaler.get(
        "/metrics"
    )
    stage.run_ready(number=2)
    assert stage.client.result(task_id, wait_s=20).state == "done"
    # It comes back, and what it ends now no longer counts.
    for process in reversed(family):
        process.resume()
    time.sleep(5)
    assert stage.client.result(task_id).state == "done"
    with stage.redis.connect() as redis:
        assert redis.llen("browser") == 0
        assert redis.llen("swarm:held:gone:browser:1:a") == 0


def test_a_scaler_without_a_broker_is_exit_2(stage: Stage) -> None:
    ran = stage.swarm("scaler", "run", REDIS_URL="", CREDENTIALS_DIRECTORY=str(stage.directory))
    assert ran.returncode == 2
    assert "REDIS_URL: got nothing, expected redis://" in ran.stderr


def test_a_broker_that_is_away_ends_nothing(
    stage: Stage, systemctl: StubSystemctl, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "redis", RedisServer(stage.directory))
    scaler = start(None)
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= 5, what="five turns")
    assert scaler.log.count("the broker does not answer the scaler") == 1
    assert scaler.state()["pools"]["browser"]["waiting"] is None
    scaler.process.send_signal(signal.SIGTERM)
    assert scaler.process.wait(10) == 0


def with_fallback_pools(stage: Stage) -> None:
    """A pool on the fallback for each of the primary's, with the same queues."""
    pools = yaml.safe_load(stage.config.read_text(encoding="utf-8"))["pools"]
    stage.write_config(
        pools={
            f"{name}-fallback": {
                **pool,
                "broker": "fallback",
                "metrics_port_base": free_port_base(),
            }
            for name, pool in pools.items()
        },
        brokers={"confirm_down_s": 2.0},
    )


def test_what_a_fallback_holds_is_done_while_the_primary_is_down(
    stage: Stage,
    systemctl: StubSystemctl,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with_fallback_pools(stage)
    (tmp_path / "primary").mkdir()
    primary, fallback = RedisServer(tmp_path / "primary"), stage.redis
    stage.client.submit("analysis", {"html": "<p>x</p>"})
    monkeypatch.setattr(stage, "redis", primary)
    for number in range(1, 9):
        systemctl.add(f"celery-browser@{number}.service")
    scaler = start(None, REDIS_FALLBACK_URL=fallback.url)
    sentence = "the primary broker is down: "
    wait_until(lambda: sentence in scaler.log, what="the line")
    assert scaler.log.count("the primary broker does not answer the scaler") == 1
    assert "analysis-fallback: up 0 -> 1 (1 waiting)" in scaler.log
    assert "analysis-fallback: 1 of 1 starts wait, every host is full" in scaler.log
    metrics = scaler.get("/metrics")
    assert 'swarm_scaler_broker_up{broker="primary"} 0.0' in metrics
    assert 'swarm_scaler_broker_up{broker="fallback"} 1.0' in metrics
    shown = stage.swarm("status").stdout
    assert "the primary broker is down for" in shown
    assert "the fallback broker answers" in shown
    # Nothing that does not report gives way, however long its broker is down.
    assert not any("stop" in call for call in systemctl.calls)
    with primary:
        wait_until(
            lambda: "the primary broker answers again" in scaler.log, timeout_s=15, what="the line"
        )
    assert scaler.log.count(sentence) == 1


def test_an_idle_instance_that_lost_its_broker_gives_its_place_away(
    stage: Stage,
    systemctl: StubSystemctl,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with_fallback_pools(stage)
    stage.write_config(hosts={"here": {"address": "local", "max_instances": 1}})
    (tmp_path / "primary").mkdir()
    fallback = stage.redis
    stage.client.submit("analysis", {"html": "<p>x</p>"})
    with RedisServer(tmp_path / "primary") as primary:
        monkeypatch.setattr(stage, "redis", primary)
        instance_of(stage.run_ready("analysis"), systemctl, "celery-analysis@1.service")
        scaler = start(None, reads_status=True, REDIS_FALLBACK_URL=fallback.url)
        wait_until(lambda: "1 of 1 starts wait, every host is full" in scaler.log, what="the wait")
        wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= 8, what="eight turns")
        assert not any("stop" in call for call in systemctl.calls), "its broker is there"
    wait_until(
        lambda: any("stop --no-block celery-analysis@1" in call for call in systemctl.calls),
        what="the stop",
    )
    wait_until(
        lambda: any("start --no-block celery-analysis-fallback@1" in c for c in systemctl.calls),
        what="the start",
    )
    assert "analysis gives way to analysis-fallback: its broker is down" in scaler.log


def test_a_scaler_without_a_fallback_that_a_pool_serves_is_exit_2(stage: Stage) -> None:
    with_fallback_pools(stage)
    ran = stage.swarm("scaler", "run", CREDENTIALS_DIRECTORY=str(stage.directory))
    assert ran.returncode == 2
    assert "REDIS_FALLBACK_URL: got nothing, expected redis://" in ran.stderr


def test_a_scaler_without_its_ssh_key_is_exit_2(stage: Stage) -> None:
    stage.write_config(
        hosts={"far": {"address": "10.77.0.99", "max_instances": 1}},
        scaler={"metrics_port": free_port(), "ssh_key": str(stage.directory / "absent")},
    )
    ran = stage.swarm("scaler", "run")
    assert ran.returncode == 2
    assert "scaler.ssh_key" in ran.stderr


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("SWARM_LOGLEVEL", "verbose", "SWARM_LOGLEVEL: got 'verbose', expected one of debug, info"),
        ("SWARM_METRICS_ADDRESS", "a..b", "expected an address of this host and a free port"),
    ],
)
def test_a_wrong_variable_of_the_scaler_is_exit_2(
    stage: Stage, variable: str, value: str, told: str
) -> None:
    stage.write_config(
        scaler={"metrics_port": free_port(), "state_directory": str(stage.directory)},
        hosts={"here": {"address": "local", "max_instances": 8}},
    )
    ran = stage.swarm("scaler", "run", **{variable: value})
    assert ran.returncode == 2, ran
    assert told in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_scaler_without_hosts_is_exit_2(stage: Stage) -> None:
    document = yaml.safe_load(stage.config.read_text(encoding="utf-8"))
    del document["hosts"]
    stage.config.write_text(yaml.safe_dump(document), encoding="utf-8")
    ran = stage.swarm("scaler", "run")
    assert ran.returncode == 2
    assert "hosts: got nothing, expected at least one host" in ran.stderr

"""The command line: exit statuses and what people read. Each runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from swarm.scaler.model import BrokerCondition, Cause, Decision, Direction, Outcome, Unknown
from swarm.scaler.snapshot import Snapshots
from tests.builders import make_instances, make_observation

CONFIG = """
pools:
  browser: {{task_type: browser, queues: [browser], metrics_port_base: 9100}}
hosts:
  h1: {{address: local, max_instances: 4}}
scaler: {{state_directory: {directory}}}
"""
#: Nothing listens on port 1.
AWAY = "redis://:s3cret@127.0.0.1:1/0"
PAYLOAD = '{"url": "http://h/", "actions": [{"kind": "text"}]}'


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.format(directory=tmp_path), encoding="utf-8")
    return {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "SWARM_CONFIG": str(config),
        "REDIS_URL": AWAY,
    }


def swarm(
    environ: dict[str, str], *words: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    program = "from swarm.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env=environ,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_good_config_is_told_so(environ: dict[str, str]) -> None:
    done = swarm(environ, "config", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("config.yaml: 1 pools, 1 hosts, no errors\n")


def test_a_wrong_config_is_exit_2_with_a_line_for_each_error(
    environ: dict[str, str], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("pools: {b: {queues: [], colour: 1}}\nhosts: []\n", encoding="utf-8")
    done = swarm(environ, "config", "check", str(wrong))
    assert (done.returncode, done.stdout) == (2, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 5
    assert all(line.startswith(f"swarm: {wrong}: ") and "expected" in line for line in lines)


def test_the_config_is_checked_before_anything_else_exists(environ: dict[str, str]) -> None:
    del environ["REDIS_URL"]
    assert swarm(environ, "config", "check").returncode == 0


@pytest.mark.parametrize("command", [["worker"], ["scaler", "run"], ["status"]])
def test_a_service_on_a_missing_config_is_exit_2(
    environ: dict[str, str], command: list[str]
) -> None:
    done = swarm({**environ, "SWARM_CONFIG": "/absent.yaml"}, *command)
    assert done.returncode == 2
    assert "swarm: /absent.yaml: got no file to read" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_reports_every_wrong_variable(environ: dict[str, str]) -> None:
    done = swarm({**environ, "SWARM_POOL": "x", "CELERY_POOL": "y", "REDIS_URL": "z"}, "worker")
    assert done.returncode == 2
    named = {line.split(": ")[1] for line in done.stderr.splitlines()}
    assert named == {"SWARM_POOL", "SWARM_INSTANCE", "CELERY_POOL", "REDIS_URL"}


@pytest.mark.parametrize(
    ("words", "stdin", "expected"),
    [
        (["browser", "{"], "", "PAYLOAD: got no JSON"),
        (["browser", "[]"], "", "PAYLOAD: got list, expected one JSON object"),
        (["browser", "@/absent.json"], "", "/absent.json: got No such file"),
        (["browser", "-"], "nonsense", "standard input: got no JSON"),
        (["browser", '{"colour": 1}'], "", "payload: colour: got 1"),
        (["browser", PAYLOAD.replace("http", "ftp")], "", "scheme is http or https"),
        (["analysis", "{}"], "", "payload: html: got nothing"),
        (["analysis", '{"html": "x"}'], "", "a task type that a pool of config.yaml runs"),
        (["dance", "{}"], "", "'dance' is not one of"),
        (["browser"], "", "Missing argument 'PAYLOAD'"),
        (["browser", PAYLOAD, "--wait", "-1"], "", "--wait"),
    ],
)
def test_what_is_wrong_is_refused_at_submit(
    environ: dict[str, str], words: list[str], stdin: str, expected: str
) -> None:
    done = swarm(environ, "submit", *words, stdin=stdin)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["submit", "browser", PAYLOAD], ["result", "some-id"]])
def test_a_broker_that_is_away_is_exit_3_within_seconds(
    environ: dict[str, str], command: list[str]
) -> None:
    started_at = time.monotonic()
    done = swarm(environ, *command)
    assert time.monotonic() - started_at < 5
    assert (done.returncode, done.stdout) == (3, "")
    assert "broker" in done.stderr
    assert ("nothing was queued" in done.stderr) is (command[0] == "submit")
    assert "s3cret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_broker_is_exit_2(environ: dict[str, str]) -> None:
    done = swarm({**environ, "REDIS_URL": "http://u:s3cret@h"}, "submit", "browser", PAYLOAD)
    assert done.returncode == 2
    assert done.stderr.startswith("swarm: REDIS_URL: got 'http://***@h', expected redis://")


def test_status_without_a_scaler_says_where_to_run_it(environ: dict[str, str]) -> None:
    done = swarm(environ, "status")
    assert done.returncode == 2
    assert "swarm-scaler.service" in done.stderr


def write_status(
    directory: Path, *, ago_s: float, brokers: dict[str, BrokerCondition] | None = None
) -> None:
    decision = Decision("browser", Direction.HOLD, 2, 2, 2, Cause.ENOUGH, "as many as needed")
    observation = make_observation(
        Unknown("401"), make_instances(busy=1, idle=1), hosts={"h2": Unknown("no answer")}
    )
    confirmed = frozenset(n for n, c in (brokers or {}).items() if (c.down_for_s or 0) >= 30)
    observation = replace(observation, brokers=brokers or {}, confirmed_down=confirmed)
    outcome = Outcome(observation, {"browser": decision})
    text = Snapshots().text(outcome, written_at=time.time() - ago_s)
    (directory / "status.json").write_text(text, encoding="utf-8")


def test_status_shows_pools_hosts_and_instances(environ: dict[str, str], tmp_path: Path) -> None:
    write_status(tmp_path, ago_s=1)
    done = swarm(environ, "status")
    assert done.returncode == 0
    assert "is swarm-scaler running?" not in done.stdout
    assert "browser: 2 running, 2 desired, unknown waiting (as many as needed)" in done.stdout
    assert "celery-browser@1 on h1: busy, 1 active, 0 ended" in done.stdout
    assert "h2 does not answer: no answer" in done.stdout


def test_status_shows_how_the_brokers_are_when_there_are_two(
    environ: dict[str, str], tmp_path: Path
) -> None:
    alone = {"primary": BrokerCondition(42.0, "Connection refused")}
    write_status(tmp_path, ago_s=1, brokers=alone)
    assert "broker" not in swarm(environ, "status").stdout
    write_status(tmp_path, ago_s=1, brokers={**alone, "fallback": BrokerCondition()})
    shown = swarm(environ, "status").stdout
    expected = "the primary broker is down for 42 s, its pools give way (Connection refused)\n"
    assert f"{expected}the fallback broker answers\n" in shown
    brokers = json.loads(swarm(environ, "status", "--json").stdout)["brokers"]
    assert [broker["answers"] for broker in brokers.values()] == [False, True]
    failing = {"primary": BrokerCondition(8.0, "gone"), "fallback": BrokerCondition()}
    write_status(tmp_path, ago_s=1, brokers=failing)
    assert "the primary broker is down for 8 s (gone)" in swarm(environ, "status").stdout


def test_the_status_of_an_earlier_release_is_understood(
    environ: dict[str, str], tmp_path: Path
) -> None:
    write_status(tmp_path, ago_s=1)
    path = tmp_path / "status.json"
    document = json.loads(path.read_bytes())
    del document["brokers"]
    path.write_text(json.dumps(document), encoding="utf-8")
    assert "browser: 2 running" in swarm(environ, "status").stdout


def test_an_old_status_is_told_as_old(environ: dict[str, str], tmp_path: Path) -> None:
    write_status(tmp_path, ago_s=60)
    assert "(is swarm-scaler running?)" in swarm(environ, "status").stdout
    assert json.loads(swarm(environ, "status", "--json").stdout)["version"] == 1


def test_help_and_version_are_exit_0(environ: dict[str, str]) -> None:
    assert "Commands:" in swarm(environ, "-h").stdout
    assert swarm(environ, "--version").stdout.startswith("swarm, version ")
    assert swarm(environ, "nonsense").returncode == 2

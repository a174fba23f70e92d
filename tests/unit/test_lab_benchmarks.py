"""What the benchmarks on the lab are told, and what they make of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from argparse import ArgumentTypeError
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from bench import lab_windows
from bench.lab_journal import Journal, TaskRun, UnitEvent, add_entries
from bench.lab_load import Producer, arrivals
from bench.lab_rest import unrest
from bench.lab_run import from_one
from bench.lab_verdict import Accounts, ScaleDowns, decided_stops, judge_scale_downs
from bench.lab_windows import changed, configured, put_back, short_windows
from bench.reaction import Reaction, react, summarise
from chaos.deployed_lab import DeployedLab
from lab.commands import LabError
from swarm.analysis.model import parse_analysis_job
from swarm.browse.payload import parse_browser_job
from swarm.client import Client
from swarm.errors import BrokerAwayError, ConfigError
from swarm.settings import ScalerSettings

STARTING = "7d4958e842da4a758f6c1cdc7b36dcc5"
STOPPING = "de5b426a63be47a7b6ac3eaac82e2f6f"
FAILED = "d9b373ed55a64feb8242e02dbe79a49c"


# -- the journals


def entry(**fields: str) -> str:
    return json.dumps({"__REALTIME_TIMESTAMP": "100500000", **fields})


def read(*lines: str) -> Journal:
    journal = Journal()
    add_entries(journal, "worker1", lines)
    return journal


@pytest.mark.parametrize(
    ("message_id", "kind"), [(STARTING, "starts"), (STOPPING, "stops"), (FAILED, "failures")]
)
def test_what_systemd_does_with_an_instance_is_sorted(message_id: str, kind: str) -> None:
    line = entry(
        MESSAGE_ID=message_id,
        UNIT="celery-browser@3.service",
        INVOCATION_ID="i",
        UNIT_RESULT="timeout",
    )
    journal = read(line)
    (event,) = getattr(journal, kind)
    assert event == UnitEvent(100.5, "worker1", "celery-browser@3.service", "i", "timeout")
    assert event.pool == "browser"
    assert journal == Journal(**{kind: [event]})


def test_other_units_and_other_lines_are_passed_over() -> None:
    lines = [
        entry(MESSAGE_ID=STARTING, UNIT="flower@primary.service", INVOCATION_ID="i"),
        entry(MESSAGE="Task browser.run[a] received", SWARM_POOL="browser"),
        entry(MESSAGE="took long", SWARM_SECONDS="3.0"),
    ]
    assert read(*lines) == Journal()


def test_a_body_began_as_long_before_its_end_as_it_took() -> None:
    line = entry(
        MESSAGE="browser.run[a] success seconds=2.3",
        SWARM_SECONDS="2.25",
        _SYSTEMD_INVOCATION_ID="i",
        _SOURCE_REALTIME_TIMESTAMP="100250000",
    )
    assert read(line).runs == [TaskRun("a", "worker1", "i", 98.0, 100.25, "success")]


# -- reaction


def start(at: float, invocation: str, pool: str = "browser") -> UnitEvent:
    return UnitEvent(at, "worker1", f"celery-{pool}@1.service", invocation)


def task(task_id: str, invocation: str, begun_at: float, ended_at: float = 60.0) -> TaskRun:
    return TaskRun(task_id, "worker1", invocation, begun_at, ended_at, "success")


def test_only_tasks_of_the_burst_on_instances_started_for_it_count() -> None:
    journal = Journal(
        starts=[start(9.0, "before"), start(10.2, "else", "analysis"), start(11.0, "n2")],
        runs=[
            task("a", "before", 10.1),
            task("foreign", "n2", 12.0),
            task("b", "n2", 14.5),
            task("c", "n2", 16.0),
        ],
    )
    assert react(journal, {"a", "b", "c"}, 10.0, 20.0) == Reaction(1.0, 4.5, 10.0, 1)


@pytest.mark.parametrize(
    ("journal", "said"),
    [
        (Journal(starts=[start(9.0, "i")], runs=[task("a", "i", 10.1)]), "no instance was started"),
        (Journal(starts=[start(11.0, "i")], runs=[task("a", "j", 10.1)]), "had no task"),
    ],
)
def test_a_burst_that_shows_nothing_is_no_measurement(journal: Journal, said: str) -> None:
    with pytest.raises(LabError, match=said):
        react(journal, {"a"}, 10.0, 20.0)


def test_the_last_line_has_percentiles_of_all_bursts() -> None:
    bursts = [Reaction(float(number), 2.0 * number, 30.0, 5) for number in range(1, 21)]
    assert summarise(bursts, 24) == {
        "repetitions": 20,
        "tasks_per_burst": 24,
        "start_issued_p50_s": 10.5,
        "start_issued_p95_s": 19.0,
        "first_task_p50_s": 21.0,
        "first_task_p95_s": 38.0,
        "all_done_p50_s": 30.0,
        "all_done_p95_s": 30.0,
    }


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", ""])
def test_an_option_that_is_no_number_from_one_is_refused(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="a whole number from 1"):
        from_one(text)


# -- at rest


def status(*states: str, waiting: int | None = 0, answers: bool = True) -> dict[str, Any]:
    instances = [{"pool": "browser", "state": state} for state in states]
    instances.append({"pool": "other", "state": "busy"})
    return {
        "pools": {"browser": {"waiting": waiting}},
        "hosts": {"worker1": {"answers": answers, "instances": instances}},
    }


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (status("idle"), ""),
        (status("idle", "stopped"), ""),
        (status("idle", waiting=2), "2 waits"),
        (status("idle", waiting=None), "an unknown number waits"),
        (status("idle", "draining"), "draining"),
        (status("busy"), "busy"),
        (status("idle", "idle"), "2 of pool browser run"),
        (status(), "0 of pool browser run"),
        (status("idle", answers=False), "worker1 does not answer"),
    ],
)
def test_what_is_not_at_rest_is_said(document: Mapping[str, Any], said: str) -> None:
    found = unrest(document, {"browser": 1})
    assert said in found
    assert bool(found) == bool(said)


# -- the windows


DEPLOYED = """\
pools:
  browser: {task_type: browser, queues: [browser], max_instances: 6, metrics_port_base: 9100}
hosts:
  worker1: {address: 10.0.0.1, max_instances: 4}
scaler: {stabilisation_s: 20.0, reserve: 10.0}
"""


class LocalLab:
    """Its control host is a directory of this machine; its systemctl notes how it is called."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "config.yaml"
        self.config.write_text(DEPLOYED, encoding="utf-8")
        self.config.chmod(0o640)
        self.calls = directory / "calls"
        self.calls.touch()
        systemctl = directory / "systemctl"
        systemctl.write_text(f'#!/bin/sh\necho "$@" >> {self.calls}\n', encoding="utf-8")
        systemctl.chmod(0o755)
        self._environ = {**os.environ, "PATH": f"{directory}:{os.environ['PATH']}"}

    def on(self, host: str, command: str) -> str:
        assert host == "control"
        done = subprocess.run(
            ["bash", "-c", command], env=self._environ, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    @property
    def restarts(self) -> int:
        return self.calls.read_text("utf-8").splitlines().count("restart swarm-scaler.service")

    def is_as_deployed(self) -> bool:
        left = [path.name for path in self.config.parent.glob("config.yaml*")]
        text, mode = self.config.read_text("utf-8"), self.config.stat().st_mode & 0o777
        return (text, mode, left) == (DEPLOYED, 0o640, ["config.yaml"])


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalLab:
    directory = tmp_path / "etc"
    directory.mkdir()
    lab = LocalLab(directory)
    monkeypatch.setattr(lab_windows, "DEPLOYED", str(lab.config))
    monkeypatch.setattr(lab_windows, "ASIDE", f"{lab.config}.deployed")
    return lab


def as_lab(local: LocalLab) -> DeployedLab:
    return cast("DeployedLab", local)


CHANGE: dict[str, Any] = {"scaler": short_windows(), "hosts": {"worker1": {"max_instances": 8}}}


def test_windows_are_fifteen_times_shorter_than_the_defaults() -> None:
    defaults = ScalerSettings()
    assert short_windows() == {
        "stabilisation_s": pytest.approx(defaults.stabilisation_s / 15, abs=0.001),
        "scale_up_period_s": pytest.approx(defaults.scale_up_period_s / 15, abs=0.001),
        "unseen_counts_s": pytest.approx(defaults.unseen_counts_s / 15, abs=0.001),
        "reserve": defaults.reserve,
    }


def test_what_a_change_does_not_name_stays() -> None:
    before = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert changed(before, {"a": {"b": 3}, "e": {"f": 4}}) == {
        "a": {"b": 3, "c": 2},
        "d": [1],
        "e": {"f": 4},
    }
    assert before == {"a": {"b": 1, "c": 2}, "d": [1]}


def test_the_scaler_has_the_change_within_the_block_only(local: LocalLab, tmp_path: Path) -> None:
    with configured(as_lab(local), CHANGE, tmp_path):
        now = yaml.safe_load(local.config.read_text("utf-8"))
        assert now["scaler"] == short_windows()
        assert now["hosts"]["worker1"] == {"address": "10.0.0.1", "max_instances": 8}
        assert local.config.stat().st_mode & 0o777 == 0o640
        assert local.restarts == 1
    assert local.is_as_deployed()
    assert local.restarts == 2


def test_the_deployed_file_comes_back_however_the_block_ends(
    local: LocalLab, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def be_ended() -> None:
        with configured(as_lab(local), CHANGE, tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(10)

    with pytest.raises(KeyboardInterrupt):
        be_ended()
    assert local.is_as_deployed()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_a_killed_run_has_left_is_put_back(local: LocalLab, tmp_path: Path) -> None:
    block = configured(as_lab(local), CHANGE, tmp_path)
    block.__enter__()
    ours, aside = local.config.read_text("utf-8"), Path(f"{local.config}.deployed")
    block.__exit__(None, None, None)
    # As if that had not been reached.
    local.config.rename(aside)
    local.config.write_text(ours, encoding="utf-8")

    put_back(as_lab(local))

    assert local.is_as_deployed()


def test_what_was_deployed_meanwhile_stays(local: LocalLab, tmp_path: Path) -> None:
    with configured(as_lab(local), CHANGE, tmp_path):
        local.config.write_text(DEPLOYED, encoding="utf-8")
        aside = Path(f"{local.config}.deployed")
        aside.write_text("older: true\n", encoding="utf-8")
    assert local.is_as_deployed()
    assert local.restarts == 1


def test_a_change_that_is_wrong_never_reaches_the_host(local: LocalLab, tmp_path: Path) -> None:
    wrong = {"scaler": {"stabilisation_s": -1.0}}
    with pytest.raises(ConfigError), configured(as_lab(local), wrong, tmp_path):
        pass
    assert local.is_as_deployed()
    assert local.restarts == 0


# -- the work


def test_a_seed_gives_the_same_work_and_its_payloads_are_right() -> None:
    work = list(islice(arrivals(3), 400))
    assert work == list(islice(arrivals(3), 400))
    assert work != list(islice(arrivals(4), 400))
    assert [each.number for each in work] == list(range(400))
    assert work == sorted(work)
    parsers = {"analysis": parse_analysis_job, "browser": parse_browser_job}
    for each in work:
        parsers[each.task_type](each.payload)
    assert {each.task_type for each in work} == set(parsers)


class FakeClient:
    """Accepts every other task."""

    def __init__(self) -> None:
        self.asked = 0

    def submit(self, _task_type: str, _payload: Mapping[str, Any]) -> str:
        self.asked += 1
        if self.asked % 2 == 0:
            raise BrokerAwayError("away")
        return f"task {self.asked}"


def test_the_producer_tells_what_was_accepted_until_it_is_stopped() -> None:
    client = FakeClient()
    with Producer(cast("Client", client), 1, sleep=lambda _: client.asked == 5) as producer:
        producer.join()
    assert producer.accepted == ["task 1", "task 3", "task 5"]
    assert producer.refusals == ["away", "away"]


# -- the verdict on scale-downs


def command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    parts = (b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
    return b"*%d\r\n" % len(words) + b"".join(parts)


def taken(task_id: str, tag: str, holder: str = "worker1:browser:1:x") -> bytes:
    message = {"headers": {"id": task_id}, "properties": {"delivery_tag": tag}}
    return command("RPUSH", f"swarm:held:{holder}", f"browser\n{json.dumps(message)}")


def ended(task_id: str, status: str = "SUCCESS") -> bytes:
    result = json.dumps({"status": status, "task_id": task_id})
    return command("SET", f"celery-task-meta-{task_id}", result, "EX", "9") + command(
        "SET", f"swarm:done:{task_id}", "holder tag", "EX", "9"
    )


def judged(
    journal: Journal, *accounts: bytes, accepted: tuple[str, ...] = ("a",), decided: int = 1
) -> ScaleDowns:
    return judge_scale_downs(
        journal,
        Accounts.read(b"".join(accounts)),
        accepted,
        refused=0,
        decided=decided,
        left={},
        seconds=10.0,
    )


def stop(at: float, invocation: str) -> UnitEvent:
    return UnitEvent(at, "worker1", "celery-browser@1.service", invocation)


GOOD = Journal(starts=[start(1.0, "i")], stops=[stop(9.0, "i")], runs=[task("a", "i", 3.0, 8.0)])


def test_a_good_run_has_no_problems() -> None:
    found = judged(GOOD, taken("a", "t1"), ended("a"))
    assert found.problems(1) == []
    assert found.summary() == {
        "scale_downs": 1,
        "scale_downs_under_load": 0,
        "starts": 1,
        "accepted": 1,
        "committed": 1,
        "interrupted": 0,
        "met_a_task": 0,
        "lost": 0,
        "committed_twice": 0,
        "failed_tasks": 0,
        "failed_units": 0,
        "seconds": 10,
    }


def test_a_message_that_is_taken_again_was_interrupted() -> None:
    again = taken("a", "t1", holder="worker2:browser:1:y")
    found = judged(GOOD, taken("a", "t1"), again, ended("a"))
    assert found.interrupted == ("a",)
    assert found.problems(1) == ["interrupted: a"]


def test_a_task_that_celery_retries_is_a_new_message_and_was_not_interrupted() -> None:
    retried = TaskRun("a", "worker1", "i", 2.0, 2.5, "retry")
    journal = Journal(stops=GOOD.stops, runs=[retried, *GOOD.runs])
    found = judged(journal, taken("a", "t1"), taken("a", "t2"), ended("a"))
    assert found.interrupted == ()


def test_a_body_that_was_run_twice_was_interrupted() -> None:
    journal = Journal(stops=GOOD.stops, runs=[*GOOD.runs, task("a", "j", 4.0, 5.0)])
    assert judged(journal, taken("a", "t1"), ended("a")).interrupted == ("a",)


def test_a_task_that_ended_after_its_instance_was_told_to_stop_met_the_stop() -> None:
    journal = Journal(stops=[stop(5.0, "i")], runs=[task("a", "i", 3.0, 8.0)])
    found = judged(journal, taken("a", "t1"), ended("a"))
    assert found.met_a_task == ("a",)
    assert found.problems(1) == ["ran on an instance as it was stopped: a"]


def test_a_stop_is_under_load_while_a_task_runs_elsewhere() -> None:
    runs = [task("a", "i", 3.0, 8.0), task("b", "other", 8.5, 9.5)]
    journal = Journal(stops=[stop(9.0, "i"), stop(12.0, "k")], runs=runs)
    data = (taken("a", "t1"), taken("b", "t2"), ended("a"), ended("b"))
    assert judged(journal, *data, accepted=("a", "b"), decided=2).under_load == 1


@pytest.mark.parametrize(
    ("journal", "accounts", "said"),
    [
        (GOOD, [taken("a", "t1")], "lost: a"),
        (GOOD, [taken("a", "t1"), ended("a"), ended("a")], "committed twice: a"),
        (GOOD, [taken("a", "t1"), ended("a", "FAILURE")], "1 tasks failed"),
        (GOOD, [ended("a")], "do not tell of 1 tasks"),
        (Journal(stops=GOOD.stops), [taken("a", "t1"), ended("a")], "do not tell of 1 tasks"),
        (Journal(runs=GOOD.runs), [taken("a", "t1"), ended("a")], "0 scale-downs, expected 1"),
        (
            Journal(stops=[*GOOD.stops, stop(9.5, "j")], runs=GOOD.runs),
            [taken("a", "t1"), ended("a")],
            "decided on 1 of 2 stops only",
        ),
        (
            Journal(stops=GOOD.stops, runs=GOOD.runs, failures=[stop(9.6, "i")]),
            [taken("a", "t1"), ended("a")],
            "ended badly: celery-browser@1.service on worker1",
        ),
    ],
)
def test_what_a_good_run_does_not_have_is_said(
    journal: Journal, accounts: list[bytes], said: str
) -> None:
    (problem,) = judged(journal, *accounts).problems(1)
    assert said in problem


def test_stops_that_failed_or_were_decided_before_do_not_count() -> None:
    stops: list[dict[str, Any]] = [{"stop": ["worker1", "browser", 1]}]
    lines = [
        json.dumps({"at": 5.0, "actions": stops}),
        json.dumps({"at": 15.0, "actions": [*stops, {"start": ["worker1", "browser", 2]}]}),
        json.dumps({"at": 16.0, "actions": [{**stops[0], "error": "no answer"}]}),
    ]
    assert decided_stops(lines, 10.0) == 1

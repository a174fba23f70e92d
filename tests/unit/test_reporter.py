"""What an instance says of itself, from what Celery and its processes tell it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.worker import state as celery_state

from swarm.brokers import Broker
from swarm.browse.secrets import Secrets
from swarm.delivery.intake import Intake
from swarm.environment import WorkerEnvironment
from swarm.variables import Autoscale
from swarm.worker.drain import Drain
from swarm.worker.metrics import WorkerMetrics
from swarm.worker.reporter import Reporter
from swarm.worker.telemetry import Telemetry
from tests.builders import BROWSER, make_cgroup, make_settings


class Notes:
    """A notifier that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def ready(self, line: str) -> None:
        self.told.append(("ready", line))

    def status(self, line: str) -> None:
        self.told.append(("status", line))

    def stopping(self, line: str) -> None:
        self.told.append(("stopping", line))

    def watchdog(self) -> None:
        self.told.append(("watchdog", ""))

    def last_line(self) -> str:
        return [line for kind, line in self.told if kind == "status"][-1]

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.told]


class Desk:
    """A reporter whose thread does not run: `look` is one turn of it."""

    def __init__(self, directory: Path, **fields: Any) -> None:
        worker = {"status_directory": str(directory), **fields.pop("worker", {})}
        settings = make_settings(pools={"browser": BROWSER}, worker=worker)
        environment = {
            "settings": settings,
            "broker": Broker("primary", "redis://h"),
            "pool_name": "browser",
            "pool": settings.pools["browser"],
            "instance": 1,
            "host": "h1",
            "metrics_address": "127.0.0.1",
            "queues": ("browser",),
            "concurrency": 1,
            "autoscale": None,
            "celery_pool": "prefork",
            "log_level": "info",
            "max_tasks": 100,
            "secrets": Secrets({}),
            **fields,
        }
        self.directory = directory
        self.telemetry = Telemetry()
        self.notes = Notes()
        self.metrics = WorkerMetrics()
        self.failed_starts: list[int] = []
        self.pauses: list[bool] = []
        self.drain = Drain(Intake(), lambda: bool(celery_state.reserved_requests))
        self.reporter = Reporter(
            WorkerEnvironment(**environment),
            self.telemetry,
            self.notes,  # type: ignore[arg-type]
            self.metrics,
            on_failed_start=self.failed_starts.append,
            on_pause=self.pauses.append,
            drain=self.drain,
        )

    def look(self) -> dict[str, Any]:
        """One turn of the reporter's loop; what the status file says after it."""

        class Once:
            looks = 0

            def is_set(self) -> bool:
                self.looks += 1
                return self.looks > 1

        self.reporter._stop = Once()  # type: ignore[assignment]
        self.reporter._run()
        path = self.directory / "browser-1.json"
        document: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return document

    def begin(self) -> dict[str, Any]:
        self.reporter.broker.connected(True)  # noqa: FBT003
        self.reporter.consuming()
        self.telemetry.process_ready()
        self.look()
        return self.look()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("swarm.worker.reporter._TICK_S", 0)
    yield
    celery_state.active_requests.clear()
    celery_state.reserved_requests.clear()


class Request:
    """Stands for Celery's request: it is only counted."""


def test_a_worker_is_ready_when_it_consumes_and_a_process_can_work(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.look()["phase"] == "starting"
    desk.reporter.consuming()
    assert desk.look()["phase"] == "starting"
    assert "ready" not in desk.notes.kinds()
    desk.telemetry.process_ready()
    document = desk.look()
    assert document["phase"] == "running"
    assert document["browser"] == "up"
    assert document["boot_time_s"] >= 0
    assert document["pid"] == os.getpid()
    assert desk.notes.kinds().count("ready") == 1


def test_every_process_is_waited_for(tmp_path: Path) -> None:
    desk = Desk(tmp_path, concurrency=2)
    assert desk.begin()["phase"] == "starting"
    desk.telemetry.process_ready()
    assert desk.look()["phase"] == "running"


def test_threads_are_one_process(tmp_path: Path) -> None:
    document = Desk(tmp_path, concurrency=3, celery_pool="threads").begin()
    assert (document["phase"], document["capacity"]) == ("running", 3)


def test_with_autoscale_the_fewest_processes_are_waited_for(tmp_path: Path) -> None:
    desk = Desk(tmp_path, concurrency=4, autoscale=Autoscale(maximum=4, minimum=1))
    document = desk.begin()
    assert (document["phase"], document["capacity"]) == ("running", 4)


def test_a_process_that_cannot_start_ends_the_start(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.telemetry.process_failed("no sandbox", exit_status=2)
    assert desk.look()["browser"] == "down"
    assert desk.failed_starts == [2]


def test_a_process_lost_later_does_not_end_the_worker(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.telemetry.process_failed("no memory")
    assert desk.look()["browser"] == "down"
    assert desk.failed_starts == []
    desk.telemetry.process_ready()
    assert desk.look()["browser"] == "up"


def test_running_and_taken_tasks_are_told_apart(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.begin()["idle_since"] is not None
    running, taken = Request(), Request()
    celery_state.reserved_requests.add(running)
    celery_state.reserved_requests.add(taken)
    celery_state.active_requests.add(running)
    document = desk.look()
    assert (document["active"], document["reserved"]) == (1, 1)
    assert document["idle_since"] is None
    assert desk.notes.told[-2:] == [
        ("status", "browser: 1 busy of 1, 0 done, redis primary"),
        ("watchdog", ""),
    ]


def test_idle_is_dated_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    since = desk.begin()["idle_since"]
    assert desk.look()["idle_since"] == since


def test_a_task_too_short_to_be_seen_ends_the_idle_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    since = desk.begin()["idle_since"]
    desk.telemetry.task_ended("browser.run", "success", 0.01)
    assert desk.look()["idle_since"] > since


def test_outcomes_are_counted_and_a_retry_is_neither(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    for outcome in ("success", "success", "failure", "retry"):
        desk.telemetry.task_ended("browser.run", outcome, 1.0)
    document = desk.look()
    assert (document["done"], document["failed"]) == (2, 1)
    labels = {"task": "browser.run", "outcome": "retry", "code": ""}
    assert desk.metrics.registry.get_sample_value("swarm_tasks_total", labels) == 1


def test_the_service_time_follows_slowly(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert desk.begin()["service_time_s"] is None
    desk.telemetry.task_ended("browser.run", "success", 2.0)
    assert desk.look()["service_time_s"] == 2.0
    desk.telemetry.task_ended("browser.run", "success", 4.0)
    assert desk.look()["service_time_s"] == 2.2


def test_an_end_whose_length_nobody_knows_leaves_the_service_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.telemetry.task_ended("browser.run", "success", 2.0)
    desk.telemetry.task_ended("browser.run", "failure", 0.0, "TIME_LIMIT")
    document = desk.look()
    assert (document["service_time_s"], document["failed"]) == (2.0, 1)


@pytest.mark.parametrize(
    ("event", "after"),
    [
        ("launched", "up"),
        ("lost", "down"),
        ("killed", "down"),
        ("retired", "up"),
        ("page-crashed", "up"),
    ],
)
def test_only_its_own_end_leaves_a_process_without_browser(
    tmp_path: Path, event: str, after: str
) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.telemetry.browser_event(event, "memory")
    assert desk.look()["browser"] == after


def test_a_unit_near_its_limit_takes_nothing_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("swarm.worker.reporter._LOAD_S", 0)
    caplog.set_level("INFO")
    cgroup = make_cgroup(tmp_path / "cgroup", pids=50)
    desk = Desk(tmp_path, worker={"cgroup": str(cgroup)})
    assert "paused" not in desk.begin()
    (cgroup / "pids.current").write_text("95\n")
    for _ in range(3):
        assert desk.look()["paused"] == "pids 95 % of 100"
    assert desk.pauses == [True]
    assert desk.notes.told[-2] == (
        "status",
        "browser: paused: pids 95 % of 100, 0 busy of 1, 0 done, redis primary",
    )
    assert desk.metrics.registry.get_sample_value("swarm_worker_paused") == 1
    share = {"resource": "pids"}
    assert desk.metrics.registry.get_sample_value("swarm_unit_limit_ratio", share) == 0.95
    (cgroup / "pids.current").write_text("60\n")
    assert "paused" not in desk.look()
    assert desk.pauses == [True, False]
    told = [record.message for record in caplog.records if "tasks" in record.message]
    assert told == ["takes no more tasks for now", "takes tasks again"]


def test_a_drain_is_told_from_its_begin_to_its_end(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert "drain" not in desk.begin()
    task = Request()
    celery_state.reserved_requests.add(task)
    celery_state.active_requests.add(task)
    since = desk.drain.begin().since
    assert desk.look()["drain"] == {"state": "stopping", "sequence": 2, "since": since}
    assert desk.notes.last_line() == "browser: draining, 1 busy of 1, 0 done, redis primary"
    assert desk.metrics.registry.get_sample_value("swarm_worker_draining") == 1
    celery_state.active_requests.clear()
    celery_state.reserved_requests.clear()
    assert desk.look()["drain"] == {"state": "idle", "sequence": 3, "since": since}
    assert desk.notes.last_line() == "browser: drained, 0 busy of 1, 0 done, redis primary"
    desk.drain.cancel()
    assert "drain" not in desk.look()
    assert desk.metrics.registry.get_sample_value("swarm_worker_draining") == 0


def test_a_drain_that_nobody_renews_ends_by_the_reporters_look(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.drain.begin(for_s=0.01)
    time.sleep(0.02)
    assert "drain" not in desk.look()


def test_leaving_is_told_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.reporter.stopping()
    assert desk.look()["phase"] == "stopping"
    desk.look()
    assert desk.notes.kinds().count("stopping") == 1
    with pytest.raises(ValueError, match="will not consume again"):
        desk.drain.cancel()


def test_a_lost_broker_is_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.begin()
    desk.reporter.broker.connected(False)  # noqa: FBT003
    assert desk.look()["broker"] == "away"
    assert desk.metrics.registry.get_sample_value("swarm_broker_up") == 0


def test_a_directory_that_is_missing_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(tmp_path / "absent")
    desk.begin()
    for _ in range(3):
        desk.telemetry.task_ended("browser.run", "success", 1.0)
        desk.look()
    assert [r.levelname for r in caplog.records if "not written" in r.message] == ["ERROR"]


def test_stopping_removes_the_status_file(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    reporter = desk.reporter
    reporter.start()
    desk.telemetry.process_ready()
    reporter.stop()
    assert list(tmp_path.iterdir()) == []

"""Tasks from submit to result: what a user of `swarm.client` gets."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lab.pages import page_title
from swarm.client import TaskResult
from tests.integration.stage import Stage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import wait_until

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def worker(shared: Stage) -> WorkerProcess:
    return shared.run_ready("browser", 1)


@pytest.fixture(scope="module")
def analyst(shared: Stage) -> WorkerProcess:
    return shared.run_ready("analysis", 1)


def browse(stage: Stage, path: str, *actions: dict[str, Any], **fields: Any) -> TaskResult:
    payload = {
        "url": stage.site.url(path),
        "actions": list(actions) or [{"kind": "text"}],
        **fields,
    }
    return stage.client.result(stage.client.submit("browser", payload), wait_s=40)


def done(result: TaskResult) -> dict[str, Any]:
    assert result.state == "done", result
    value: dict[str, Any] = result.value
    return value


def path_of(artifact: dict[str, Any]) -> Path:
    return Path(urlsplit(artifact["url"]).path)


def settled(worker: WorkerProcess) -> dict[str, Any]:
    """The status once it has taken in everything that ended."""

    def unchanged() -> dict[str, Any] | None:
        first = worker.status()
        time.sleep(0.6)
        return first if worker.status() == first else None

    status: dict[str, Any] = wait_until(unchanged, what="a quiet status")
    return status


def test_a_page_gives_screenshot_html_text_and_extracts(
    shared: Stage, worker: WorkerProcess
) -> None:
    value = done(
        browse(
            shared,
            "/page/2",
            {"kind": "screenshot"},
            {"kind": "screenshot", "name": "whole", "full_page": True},
            {"kind": "html"},
            {"kind": "text"},
            {"kind": "text", "name": "heading", "selector": "h1"},
            {
                "kind": "extract",
                "fields": {
                    "title": {"selector": "h1"},
                    "next": {"selector": "#next", "attribute": "href"},
                    "links": {"selector": "nav a", "many": True},
                    "absent": {"selector": ".absent"},
                    "none": {"selector": ".absent", "many": True},
                },
            },
        )
    )
    title = page_title(2)
    assert value["status"] == "ok"
    assert value["host"] == "here"
    assert value["http_status"] == 200
    assert value["title"] == title
    assert value["final_url"] == shared.site.url("/page/2")
    data = value["data"]
    assert f"<h1>{title}</h1>" in data["html"]
    assert title in data["text"]
    assert data["heading"] == title
    assert data["extract"] == {
        "title": title,
        "next": "/page/3",
        "links": ["Next", "All"],
        "absent": None,
        "none": [],
    }
    assert [artifact["kind"] for artifact in value["artifacts"]] == ["screenshot", "screenshot"]
    for artifact, name in zip(value["artifacts"], ("screenshot", "whole"), strict=True):
        content = path_of(artifact).read_bytes()
        assert content.startswith(PNG)
        assert data[name] == artifact["id"]
        assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
        assert artifact["bytes"] == len(content)
        assert path_of(artifact).parent == shared.settings.browser.artifacts_directory
    stages = {"queue", "launch", "context", "navigation", "actions", "total"}
    assert set(value["timings_s"]) == stages
    assert value["browser"]["uses"] >= 1


def test_thin_tasks_do_the_common_cases(shared: Stage, worker: WorkerProcess) -> None:
    url = shared.site.url("/page/2")
    app = shared.app

    def data(name: str, *args: Any, **kwargs: Any) -> Any:
        task = app.send_task(f"browser.{name}", args=[url, *args], kwargs=kwargs)
        return task.get(timeout=40)["data"][name]

    assert len(data("screenshot", full_page=True, limits={"deadline_s": 20})) == 32
    assert len(data("pdf")) == 32
    assert data("html").startswith("<!DOCTYPE html>")
    assert "orchard" in data("markdown", main_content=False)
    assert data("extract", {"heading": {"selector": "h1"}}) == {"heading": page_title(2)}


def test_a_payload_that_no_client_checked_is_invalid(shared: Stage, worker: WorkerProcess) -> None:
    task = shared.app.send_task("browser.run", args=[{"url": "ftp://h", "steps": 1}])
    result = shared.client.result(task.id, wait_s=40)
    assert result.error is not None
    assert result.error.startswith("PermanentJobError: INVALID in payload: payload: url: got")


def test_a_payload_of_one_key_is_done_once(shared: Stage, worker: WorkerProcess) -> None:
    payload = {
        "url": shared.site.url("/page/2?once"),
        "actions": [{"kind": "text"}],
        "idempotency_key": "once",
    }
    first, second = (shared.client.submit("browser", payload) for _ in range(2))
    assert second == first
    assert shared.client.result(first, wait_s=40).state == "done"
    assert shared.client.submit("browser", payload) == first
    assert shared.site.visits.count("/page/2?once") == 1


def test_the_browser_stays_warm(shared: Stage, worker: WorkerProcess) -> None:
    first, second = (done(browse(shared, "/page/2"))["browser"] for _ in range(2))
    assert second["uses"] == first["uses"] + 1
    assert second["age_s"] > first["age_s"]


def test_a_page_leaves_nothing_to_the_next_task(shared: Stage, worker: WorkerProcess) -> None:
    for _ in range(2):
        text = done(browse(shared, "/memory"))["data"]["text"]
        assert text == "before: |, after: visited=yes"
    assert len(worker.browsers()) == 1


def test_redirects_are_followed(shared: Stage, worker: WorkerProcess) -> None:
    value = done(browse(shared, "/redirect/3"))
    assert value["final_url"] == shared.site.url("/page/2")


def test_a_large_text_becomes_an_artifact(shared: Stage, worker: WorkerProcess) -> None:
    value = done(browse(shared, "/big", {"kind": "text"}, {"kind": "html"}))
    assert [artifact["kind"] for artifact in value["artifacts"]] == ["text", "html"]
    path = path_of(value["artifacts"][0])
    assert path.read_text(encoding="utf-8").startswith("word word")
    assert value["data"]["text"] == value["artifacts"][0]["id"]


@pytest.mark.parametrize(
    ("path", "action", "fields", "error"),
    [
        ("/status/404", {"kind": "text"}, {}, "HTTP_STATUS in navigation: the page answered 404"),
        (
            "/page/2",
            {"kind": "text", "selector": ".absent"},
            {"limits": {"step_timeout_s": 0.5}},
            "SELECTOR_TIMEOUT in text",
        ),
        ("/page/2", {"kind": "text", "selector": "]["}, {}, "ACTION_FAILED in text"),
        (
            "/page/2",
            {"kind": "extract", "name": "x", "fields": {"a": {"selector": "]["}}},
            {},
            "ACTION_FAILED in x",
        ),
        (
            "/slow?ms=5000",
            {"kind": "text"},
            {"limits": {"deadline_s": 0.5}},
            "DEADLINE in deadline: not done within 0.5 s",
        ),
    ],
)
def test_a_permanent_failure_is_told_at_once(
    shared: Stage,
    worker: WorkerProcess,
    path: str,
    action: dict[str, Any],
    fields: dict[str, Any],
    error: str,
) -> None:
    result = browse(shared, path, action, **fields)
    assert result.state == "failed"
    assert result.error is not None
    assert result.error.startswith(f"PermanentJobError: {error}")


def test_a_transient_failure_is_tried_again(shared: Stage, worker: WorkerProcess) -> None:
    shared.site.fail_first["/flaky"] = 1
    value = done(browse(shared, "/flaky"))
    assert value["title"] == "At last"
    assert shared.site.visits.count("/flaky") == 2


@pytest.mark.parametrize("path", ["/loop", "/later-loop"])
def test_a_page_in_an_endless_loop_ends_and_the_next_task_works(
    shared: Stage, worker: WorkerProcess, path: str
) -> None:
    started_at = time.monotonic()
    # The later loop is to have begun.
    steps = [{"kind": "wait_for", "ms": 100}]
    result = browse(
        shared,
        path,
        {"kind": "text"},
        {"kind": "screenshot"},
        steps=steps,
        limits={"deadline_s": 1},
    )
    assert result.state == "failed"
    assert "DEADLINE" in str(result.error)
    assert time.monotonic() - started_at < 1 + 15
    assert done(browse(shared, "/page/2"))["http_status"] == 200
    assert worker.burning_renderers() == []


def test_a_frozen_browser_is_killed_and_replaced(shared: Stage, worker: WorkerProcess) -> None:
    payload = {
        "url": shared.site.url("/slow?ms=500"),
        "actions": [{"kind": "text"}],
        "limits": {"deadline_s": 1},
    }
    visits = len(shared.site.visits)
    task_id = shared.client.submit("browser", payload)
    wait_until(lambda: len(shared.site.visits) > visits, what="the visit")
    for browser in worker.browsers():
        browser.suspend()
    result = shared.client.result(task_id, wait_s=20)
    assert result.state == "failed"
    assert "DEADLINE" in str(result.error)
    assert done(browse(shared, "/page/2"))["browser"]["uses"] == 1
    assert len(worker.browsers()) == 1


def test_a_browser_killed_during_a_task_harms_nobody(shared: Stage, worker: WorkerProcess) -> None:
    payload = {"url": shared.site.url("/slow?ms=2000"), "actions": [{"kind": "text"}]}
    visits = len(shared.site.visits)
    task_id = shared.client.submit("browser", payload)
    wait_until(lambda: len(shared.site.visits) > visits, what="the visit")
    for browser in worker.browsers():
        browser.kill()
    assert done(shared.client.result(task_id, wait_s=30))["http_status"] == 200
    assert 'swarm_browser_events_total{cause="disconnect",event="lost"} 1.0' in worker.metrics()


def test_the_instance_says_how_it_is(shared: Stage, worker: WorkerProcess) -> None:
    before = settled(worker)
    visits = len(shared.site.visits)
    payload = {"url": shared.site.url("/slow?ms=1500"), "actions": [{"kind": "text"}]}
    task_id = shared.client.submit("browser", payload)
    wait_until(lambda: len(shared.site.visits) > visits, what="the visit")
    wait_until(lambda: worker.status()["active"] == 1, timeout_s=2, what="a busy status")
    busy = worker.status()
    assert busy["idle_since"] is None
    worker.wait_told(f"STATUS=browser: 1 busy of 1, {before['done']} done")
    done(shared.client.result(task_id, wait_s=20))
    idle = wait_until(
        lambda: worker.status() if worker.status()["active"] == 0 else None, timeout_s=3
    )
    assert idle["done"] == before["done"] + 1
    assert idle["idle_since"] > 0
    assert idle["browser"] == "up"
    assert idle["broker"] == "ok"
    assert idle["phase"] == "running"
    assert idle["service_time_s"] > 0
    assert idle["boot_time_s"] > 0
    assert idle["pid"] == worker.process.pid
    metrics = worker.metrics()
    assert 'swarm_tasks_total{code="",outcome="success",task="browser.run"}' in metrics
    assert "swarm_broker_up 1.0" in metrics
    assert "swarm_worker_capacity 1.0" in metrics


def test_systemd_hears_the_watchdog(shared: Stage, worker: WorkerProcess) -> None:
    heard = worker.notify.told.count("WATCHDOG=1")
    wait_until(lambda: worker.notify.told.count("WATCHDOG=1") > heard, timeout_s=8, what="watchdog")


def test_the_logs_hold_neither_pages_nor_passwords(shared: Stage, worker: WorkerProcess) -> None:
    done(browse(shared, "/page/2", {"kind": "html"}))
    assert "browser.run[" in worker.log
    assert "<h1>" not in worker.log
    assert "s3cret" not in worker.log


def test_an_analysis_is_done_without_a_browser(shared: Stage, analyst: WorkerProcess) -> None:
    html = "<title>Harbours</title><p>The lantern is lit at dusk.</p><a href='/x'>x</a>"
    payload = {"html": html, "url": "http://pages.lab/"}
    value = done(shared.client.result(shared.client.submit("analysis", payload), wait_s=20))
    assert value["title"] == "Harbours"
    assert "lantern" in value["text"]
    assert value["links"] == [{"href": "http://pages.lab/x", "text": "x"}]
    assert value["host"] == "here"
    assert analyst.browsers() == []
    assert analyst.status()["browser"] == "none"


def test_the_command_line_submits_and_waits(shared: Stage, worker: WorkerProcess) -> None:
    payload = {"url": shared.site.url("/page/2"), "actions": [{"kind": "text"}]}
    ran = shared.swarm("submit", "browser", json.dumps(payload), "--wait", "30")
    assert (ran.returncode, ran.stderr) == (0, "")
    document = json.loads(ran.stdout)
    assert document["state"] == "done"
    again = shared.swarm("result", document["id"])
    assert json.loads(again.stdout) == document
    unknown = shared.swarm("result", "never-issued")
    assert unknown.returncode == 1
    assert json.loads(unknown.stdout)["state"] == "pending"


def test_a_failed_task_is_exit_1(shared: Stage, worker: WorkerProcess) -> None:
    payload = {"url": shared.site.url("/status/404"), "actions": [{"kind": "text"}]}
    ran = shared.swarm("submit", "browser", json.dumps(payload), "--wait", "30")
    assert ran.returncode == 1
    assert "HTTP_STATUS" in json.loads(ran.stdout)["error"]

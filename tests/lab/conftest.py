"""The deployed lab, and the means to break it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from lab.commands import LabError, run
from lab.hosts import PAGES_URL, on_host, use_lab_settings
from lab.state import State, default_directory
from lab.watch import Glance, look
from swarm.celery_app import app
from swarm.client import Client, TaskResult

#: Seconds within which the lab, with its short windows, comes back to rest.
REST_TIMEOUT_S = 150


@dataclass(frozen=True)
class Lab:
    """The lab's hosts, the swarm that runs on them, and a producer."""

    state: State
    client: Client

    def on(self, host: str, command: str) -> str:
        return on_host(self.state, host, command)

    def look(self, pool: str = "browser") -> Glance:
        return look(str(self.state.ssh_config), pool, since=0)

    def until(self, condition: Callable[[], bool], what: str, *, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
            time.sleep(0.5)

    def until_at_rest(self) -> None:
        def at_rest() -> bool:
            glance = self.look()
            is_steady = glance.waiting == glance.leaving == 0
            return is_steady and glance.total == glance.desired == 1

        self.until(at_rest, "one idle browser instance", timeout_s=REST_TIMEOUT_S)

    def submit_pages(self, count: int) -> list[str]:
        """Browser tasks of which half take one to three seconds."""
        return [
            self.client.submit(
                "browser",
                {"url": f"{PAGES_URL}/page/{number % 40 + 1}", "actions": [{"kind": "text"}]},
            )
            for number in range(count)
        ]

    def results(self, ids: list[str], *, timeout_s: float = 120) -> list[TaskResult]:
        deadline = time.monotonic() + timeout_s
        return [
            self.client.result(task_id, wait_s=max(0.1, deadline - time.monotonic()))
            for task_id in ids
        ]

    def now(self) -> str:
        """For journalctl --since; all hosts share this machine's clock."""
        return f"@{time.time():.3f}"

    def journal(self, host: str, unit: str, since: str) -> list[str]:
        command = f"journalctl -q -o cat --no-pager -u '{unit}' --since '{since}'"
        return self.on(host, command).splitlines()

    def instance_stops(self, since: str) -> list[str]:
        return [
            line
            for host in ("worker1", "worker2")
            for line in self.journal(host, "celery-browser@*", since)
            if line.startswith("Stopping ")
        ]

    def podman(self, *words: str) -> str:
        facts: dict[str, Any] = json.loads(self.state.facts.read_text(encoding="utf-8"))
        return run([*facts["podman"], *words])


@pytest.fixture(scope="session")
def _lab() -> Lab:
    state = State(default_directory())
    try:
        on_host(state, "control", "systemctl is-active swarm-scaler.service")
    except LabError as exc:
        if os.environ.get("CI"):
            pytest.fail(f"the lab is not deployed: {exc}")
        pytest.skip(f"the lab is not deployed (make deploy): {exc}")
    patch = pytest.MonkeyPatch()
    with patch.context():
        use_lab_settings(state)
        _ = app.conf.broker_url
    return Lab(state, Client(app))


@pytest.fixture
def lab(_lab: Lab) -> Lab:
    """The lab at rest: one idle browser instance, nothing waiting."""
    _lab.until_at_rest()
    return _lab

"""The hostile site in a process of its own, and an engine that visits it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from swarm.browse.directory_store import DirectoryStore
from swarm.browse.engine import Engine
from swarm.browse.errors import JobError
from swarm.browse.payload import parse_browser_job
from swarm.browse.secrets import Secrets
from swarm.browse.visit import Deployment
from swarm.settings import BrowserSettings
from tests.hostile.certificates import CERTIFICATES, write_certificate
from tests.hostile.corpus import Row
from tests.loopback import free_port, wait_until
from tests.programs import CHROMIUM, need

REPOSITORY = Path(__file__).parents[2]
ORDINARY_DEADLINE_S = 30.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REPOSITORY / "tests" / "hostile" in item.path.parents:
            item.add_marker(pytest.mark.integration)


@dataclass(frozen=True)
class HostileSite:
    """Its servers by what is wrong with them."""

    bases: Mapping[str, str]

    def asked(self) -> list[str]:
        """What was asked of it so far."""
        with urllib.request.urlopen(f"{self.bases['plain']}/asked", timeout=5) as answer:
            paths: list[str] = json.load(answer)
        return paths

    def answers(self) -> bool:
        try:
            return self.asked() is not None
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: `ok`, `partial` or the code of its error, and the seconds that it took."""

    end: str
    seconds: float
    result: Mapping[str, Any]
    told: str = ""


class Desk:
    """An engine with small limits, and jobs of which some are hostile."""

    def __init__(self, directory: Path, site: HostileSite) -> None:
        self.site = site
        self.artifacts = directory / "artifacts"
        self.artifacts.mkdir()
        self.events: list[tuple[str, str]] = []
        settings = BrowserSettings(
            sandbox=False,
            allow_evaluate=True,
            page_memory_mb=500,
            memory_before_retirement_mb=1000,
            uses_before_retirement=10_000,
            max_bytes=100_000_000,
        )
        store = DirectoryStore(self.artifacts, host="here")
        self.engine = Engine(
            Deployment(settings, store, Secrets({})),
            on_event=lambda event, cause: self.events.append((event, cause)),
        )

    def run(self, payload: dict[str, Any]) -> Outcome:
        """Do a job; whatever an engine raises that is no JobError is a fault of its own."""
        job = parse_browser_job(payload)
        began = time.monotonic()
        try:
            result = self.engine.run(job)
        except JobError as exc:
            seconds = time.monotonic() - began
            return Outcome(str(exc.code), seconds, exc.result or {}, str(exc)[:500])
        known = {"title": result.title, "final_url": result.final_url, "data": result.data}
        return Outcome(result.status, time.monotonic() - began, known)

    def run_row(self, row: Row) -> Outcome:
        return self.run(row.payload(self.site.bases))

    def run_ordinary(self, ms: int = 1) -> Outcome:
        """What anybody else has done at the same time, or afterwards."""
        return self.run(
            {
                "url": f"{self.site.bases['plain']}/empty",
                "steps": [{"kind": "wait_for", "ms": ms}],
                "actions": [{"kind": "text"}],
                "limits": {"deadline_s": ORDINARY_DEADLINE_S},
            }
        )


@pytest.fixture(scope="session")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostileSite]:
    directory = tmp_path_factory.mktemp("certificates")
    port = free_port()
    bases = {"plain": f"http://127.0.0.1:{port}", "no-tls": f"https://127.0.0.1:{port}"}
    words = []
    for kind in CERTIFICATES:
        secure = free_port()
        words += ["--tls", f"{secure}={write_certificate(directory / f'{kind}.pem', kind)}"]
        bases[kind] = f"https://127.0.0.1:{secure}"
    command = [sys.executable, "-m", "tests.hostile.server", "--port", str(port), *words]
    with subprocess.Popen(command, cwd=REPOSITORY) as process:
        site = HostileSite(bases)
        try:
            wait_until(site.answers, what="the hostile site")
            yield site
        finally:
            process.kill()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, hostile_site: HostileSite) -> Iterator[Desk]:
    """One engine for the whole corpus: the last row has to live with what the first has done."""
    need(CHROMIUM, "chromium-headless-shell")
    before = set(psutil.Process().children(recursive=True))
    desk = Desk(tmp_path_factory.mktemp("desk"), hostile_site)
    desk.engine.start()
    yield desk
    desk.engine.stop()
    assert set(psutil.Process().children(recursive=True)) <= before

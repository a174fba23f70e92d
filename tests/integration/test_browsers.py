"""A warm browser from its launch to its end, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from swarm.browse.directory_store import DirectoryStore
from swarm.browse.engine import Engine
from swarm.browse.errors import ErrorCode, JobError
from swarm.browse.payload import parse_browser_job
from swarm.browse.processes import sweep
from swarm.browse.result import JobResult
from swarm.browse.secrets import Secrets
from swarm.browse.visit import Deployment
from swarm.settings import BrowserSettings
from tests.integration.pages import Site
from tests.integration.stage import REPOSITORY
from tests.loopback import wait_until
from tests.programs import CHROMIUM, need

EAT_MEMORY = """() => { const kept = []; for (let i = 0; i < 300; i++)
  kept.push(new Uint8Array(4 << 20).fill(i)); return kept.length; }"""


class Desk:
    """An engine, its events, and a way to have jobs done beside the test."""

    def __init__(self, directory: Path, site: Site, **settings: Any) -> None:
        self.site = site
        self.events: list[tuple[str, str]] = []
        self.before = set(psutil.Process().children(recursive=True))
        chosen = BrowserSettings(sandbox=False, allow_evaluate=True, **settings)
        deployment = Deployment(chosen, DirectoryStore(directory, host="here"), Secrets({}))
        self.engine = Engine(
            deployment, on_event=lambda event, cause: self.events.append((event, cause))
        )
        self.beside = ThreadPoolExecutor(8)

    def run(self, *, task_id: str = "", deadline_s: float = 60, **fields: Any) -> JobResult:
        payload: dict[str, Any] = {
            "url": self.site.url("/page/2"),
            "actions": [{"kind": "text"}],
            "limits": {"deadline_s": deadline_s},
            **fields,
        }
        return self.engine.run(parse_browser_job(payload), task_id=task_id)

    def run_beside(self, ms: int = 3000, **fields: Any) -> Future[JobResult]:
        """A job that takes a while; returns when it is at it."""
        marker = f"/page/2?beside={time.monotonic_ns()}"
        fields.setdefault("steps", [{"kind": "wait_for", "ms": ms}])
        future = self.beside.submit(self.run, url=self.site.url(marker), **fields)
        wait_until(lambda: marker in self.site.visits, what="the page to be asked for")
        return future

    def processes(self, name: str) -> list[psutil.Process]:
        mine = set(psutil.Process().children(recursive=True)) - self.before
        return [process for process in mine if _is_called(process, name)]

    def browser(self) -> psutil.Process:
        """The browser's own process; what it has forked a moment ago still looks the same."""
        alike = [
            process
            for process in self.processes("chromium-headless-shell")
            if not any(word.startswith("--type=") for word in _command(process))
        ]
        return min(alike, key=lambda process: process.create_time())


def _is_called(process: psutil.Process, name: str) -> bool:
    """Not one that has ended since it was listed."""
    try:
        return name in process.name()
    except psutil.NoSuchProcess:
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return ["--type=gone"]


@contextmanager
def desk_of(directory: Path, site: Site, **settings: Any) -> Iterator[Desk]:
    need(CHROMIUM, "chromium-headless-shell")
    desk = Desk(directory, site, **settings)
    desk.engine.start()
    try:
        yield desk
    finally:
        desk.beside.shutdown()
        desk.engine.stop()
    assert desk.processes("") == []


@pytest.fixture
def desk(tmp_path: Path, site: Site) -> Iterator[Desk]:
    with desk_of(tmp_path, site) as desk:
        yield desk


def test_a_worn_browser_is_replaced_before_it_goes(tmp_path: Path, site: Site) -> None:
    with desk_of(tmp_path, site, uses_before_retirement=2) as desk:
        long = desk.run_beside()
        for _ in range(4):
            desk.run()
        wait_until(lambda: ("retired", "uses") in desk.events, what="a retirement")
        assert desk.events[:2] == [("launched", ""), ("launched", "")]
        assert len(desk.processes("node")) == 1
        # The job that began on the old one ends on it.
        assert long.result(timeout=20).browser is not None
        assert ("lost", "disconnect") not in desk.events


def test_an_old_browser_is_replaced_though_nobody_uses_it(tmp_path: Path, site: Site) -> None:
    with desk_of(tmp_path, site, age_before_retirement_s=0.5) as desk:
        wait_until(lambda: ("retired", "age") in desk.events, what="a retirement")


def test_a_browser_that_grew_is_replaced(tmp_path: Path, site: Site) -> None:
    with desk_of(tmp_path, site, memory_before_retirement_mb=64, page_memory_mb=4000) as desk:
        future = desk.run_beside(
            steps=[{"kind": "evaluate", "script": EAT_MEMORY}, {"kind": "wait_for", "ms": 3000}]
        )
        wait_until(lambda: ("retired", "memory") in desk.events, what="a retirement")
        assert future.result(timeout=20).status == "ok"


def test_a_page_that_takes_too_much_memory_fails_alone(tmp_path: Path, site: Site) -> None:
    with desk_of(tmp_path, site, page_memory_mb=300) as desk:
        other = desk.run_beside()
        greedy = [
            {"kind": "evaluate", "script": EAT_MEMORY},
            {"kind": "wait_for", "ms": 5000},
        ]
        with pytest.raises(JobError) as caught:
            desk.run(steps=greedy)
        assert caught.value.code is ErrorCode.RESOURCE_LIMIT
        assert other.result(timeout=20).status == "ok"
        assert desk.run().browser is not None


def kill_browser(desk: Desk) -> None:
    desk.browser().kill()


def kill_driver(desk: Desk) -> None:
    [driver] = desk.processes("node")
    driver.kill()


def freeze_driver(desk: Desk) -> None:
    [driver] = desk.processes("node")
    driver.suspend()


def freeze_browser(desk: Desk) -> None:
    desk.browser().suspend()


@pytest.mark.parametrize("harm", [kill_browser, kill_driver, freeze_driver, freeze_browser])
def test_a_job_whose_browser_ends_is_done_on_another(
    desk: Desk, harm: Callable[[Desk], None]
) -> None:
    futures = [desk.run_beside() for _ in range(3)]
    harm(desk)
    assert [future.result(timeout=60).status for future in futures] == ["ok"] * 3
    assert desk.run().status == "ok"
    assert len(desk.processes("node")) == 1


def test_a_renderer_that_dies_costs_its_own_job_only(desk: Desk) -> None:
    other = desk.run_beside()
    known = {process.pid for process in desk.processes("chrom")}
    crash = desk.run_beside(ms=10_000)
    [renderer] = [
        process
        for process in desk.processes("chrom")
        if process.pid not in known and "--type=renderer" in _command(process)
    ]
    renderer.kill()
    with pytest.raises(JobError) as caught:
        crash.result(timeout=20)
    assert caught.value.code is ErrorCode.PAGE_CRASH
    assert other.result(timeout=20).status == "ok"


@pytest.mark.parametrize("whose", ["browser", "renderer"])
def test_a_death_while_a_page_is_being_opened_is_known_as_one(desk: Desk, whose: str) -> None:
    """Chromium tells of both by net::ERR_ABORTED, as of a page that does not want to be opened."""
    url = desk.site.url(f"/slow?ms=2000&{whose}")
    future = desk.beside.submit(desk.run, url=url)
    wait_until(lambda: any(whose in visit for visit in desk.site.visits), what="the navigation")
    if whose == "browser":
        desk.browser().kill()
        assert future.result(timeout=20).status == "ok"
    else:
        for process in desk.processes("chrom"):
            if "--type=renderer" in _command(process):
                process.kill()
        with pytest.raises(JobError) as caught:
            future.result(timeout=20)
        assert caught.value.code is ErrorCode.PAGE_CRASH


@pytest.mark.parametrize("freeze", [freeze_browser, freeze_driver])
def test_what_is_frozen_ends_a_short_job_at_its_deadline(
    desk: Desk, freeze: Callable[[Desk], None]
) -> None:
    freeze(desk)
    began = time.monotonic()
    with pytest.raises(JobError) as caught:
        desk.run(deadline_s=1)
    assert caught.value.code is ErrorCode.DEADLINE
    assert time.monotonic() - began < 3
    assert desk.run().status == "ok"


def test_a_job_is_cancelled_by_its_id_and_no_other(desk: Desk) -> None:
    one, two = desk.run_beside(task_id="one"), desk.run_beside(task_id="two")
    assert not desk.engine.cancel("three")
    assert desk.engine.cancel("one")
    with pytest.raises(JobError) as caught:
        one.result(timeout=5)
    assert caught.value.code is ErrorCode.CANCELLED
    assert two.result(timeout=20).status == "ok"
    assert not desk.engine.cancel("two")


def test_nothing_is_left_in_the_temporary_directory(tmp_path: Path, site: Site) -> None:
    with desk_of(tmp_path, site) as desk:
        directory = Path(os.environ["TMPDIR"])
        assert directory.name.startswith("swarm-engine-")
        desk.run(capture={"har": True, "trace": "on"})
        wait_until(lambda: not list(directory.glob("visit-*")), what="recordings to be removed")
    assert not directory.exists()


def hold_a_browser(directory: str) -> None:
    """What the engine that is to be killed does, in a process of its own."""
    settings = BrowserSettings(sandbox=False)
    store = DirectoryStore(Path(directory), host="here")
    Engine(Deployment(settings, store, Secrets({}))).start()
    print("up", flush=True)  # noqa: T201 - told to the test
    signal.pause()


def test_what_a_killed_engine_left_is_swept_up(tmp_path: Path) -> None:
    need(CHROMIUM, "chromium-headless-shell")
    module = "tests.integration.test_browsers"
    program = f"from {module} import hold_a_browser; hold_a_browser({str(tmp_path)!r})"
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE
    ) as engine:
        assert engine.stdout is not None
        assert engine.stdout.readline() == b"up\n"
        left = psutil.Process(engine.pid).children(recursive=True)
        # Frozen, they do not notice that their engine is gone.
        for process in left:
            process.suspend()
        engine.kill()
        engine.wait()
    assert any(process.is_running() for process in left)
    assert sweep(tmp_path) > 0
    _, alive = psutil.wait_procs(left, timeout=10)
    assert alive == []
    assert list(tmp_path.glob("swarm-engine-*")) == []


def test_a_living_engine_is_left_alone(desk: Desk) -> None:
    assert sweep(Path(os.environ["TMPDIR"]).parent) == 0
    assert desk.run().status == "ok"


def test_jobs_of_many_threads_share_the_browser(desk: Desk) -> None:
    barrier = threading.Barrier(8)

    def run() -> JobResult:
        barrier.wait()
        return desk.run()

    results = [future.result(timeout=60) for future in [desk.beside.submit(run) for _ in range(8)]]
    assert {result.status for result in results} == {"ok"}
    assert desk.events == [("launched", "")]

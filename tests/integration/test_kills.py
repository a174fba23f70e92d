"""SIGKILL to Chromium, its renderers, the driver, pool children and workers, in every pool.

Redis' append-only file is the witness, as in `make chaos`: every task ends well and once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from chaos.submissions import Entry, FinalStatuses
from chaos.witness import Evidence, examine, judge, read_commands
from tests.integration.pages import Site
from tests.integration.stage import Stage, make_stage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import REDIS, RedisServer, wait_until
from tests.programs import CHROMIUM, need

#: Celery's pools with the tasks that each runs at a time.
POOLS = {"prefork": 2, "threads": 3, "solo": 1}


@dataclass
class Ward:
    """A worker that is harmed, and the tasks that it runs meanwhile."""

    stage: Stage
    pool: str
    worker: WorkerProcess = field(init=False)
    ids: list[str] = field(default_factory=list)
    _invocations: Iterator[int] = field(default_factory=itertools.count)

    def start(self) -> None:
        """Also again, as systemd does: under the same number."""
        self.worker = self.stage.run_ready(
            CELERY_POOL=self.pool,
            CELERY_CONCURRENCY=str(POOLS[self.pool]),
            INVOCATION_ID=f"invocation-{next(self._invocations)}",
        )

    def begin_tasks(self) -> list[str]:
        """As many as it runs at a time; returns when each is at its page."""
        ids: list[str] = []
        for _ in range(POOLS[self.pool]):
            marker = f"/page/2?task={len(self.ids) + len(ids)}"
            payload = {
                "url": self.stage.site.url(marker),
                "steps": [{"kind": "wait_for", "ms": 2000}],
                "actions": [{"kind": "text"}],
            }
            ids.append(self.stage.client.submit("browser", payload))
            self._wait_for_visit(marker)
        self.ids += ids
        return ids

    def _wait_for_visit(self, path: str) -> None:
        wait_until(lambda: path in self.stage.site.visits, what=f"a visit of {path}")

    def end_tasks(self, ids: list[str]) -> None:
        for task_id in ids:
            result = self.stage.client.result(task_id, wait_s=50)
            assert result.state == "done", f"{result.error}\n{self.worker.log}"
            assert result.value["status"] == "ok"

    def evidence(self) -> Evidence:
        (file,) = (self.stage.redis.directory / "appendonlydir").glob("*.incr.aof")
        return examine(read_commands(file.read_bytes()))

    def descendants(self, word: str) -> list[psutil.Process]:
        """Those with the word in their command line, the youngest first."""
        family = psutil.Process(self.worker.process.pid).children(recursive=True)
        found = []
        for process in family:
            try:
                if word in " ".join(process.cmdline()):
                    found.append((process.create_time(), process.pid, process))
            except psutil.NoSuchProcess:
                continue
        return [process for *_, process in sorted(found, reverse=True)]


@pytest.fixture(params=POOLS)
def ward(request: pytest.FixtureRequest, tmp_path: Path, site: Site) -> Iterator[Ward]:
    need(CHROMIUM, "chromium-headless-shell")
    need(REDIS, "redis-tools")
    site.visits.clear()
    with RedisServer(tmp_path, options=("--appendonly", "yes")) as redis:
        stage = make_stage(tmp_path, redis, site)
        ward = Ward(stage, request.param)
        ward.start()
        try:
            yield ward
        finally:
            stage.close()


def kill_browser(ward: Ward) -> None:
    ward.worker.browsers()[0].kill()


def kill_renderer(ward: Ward) -> None:
    ward.descendants("--type=renderer")[0].kill()


def kill_driver(ward: Ward) -> None:
    ward.descendants("run-driver")[0].kill()


def kill_pool_child(ward: Ward) -> None:
    psutil.Process(ward.worker.process.pid).children()[0].kill()


def kill_worker(ward: Ward) -> None:
    """All that it started ends with it, or by its next start."""
    left = psutil.Process(ward.worker.process.pid).children(recursive=True)
    ward.worker.process.kill()
    ward.worker.process.wait()
    ward.start()
    _, alive = psutil.wait_procs(left, timeout=10)
    assert alive == []


#: What each does to the tasks: a browser is replaced within the run, anything else costs the run.
HARMS: dict[Callable[[Ward], None], bool] = {
    kill_browser: False,
    kill_driver: False,
    kill_renderer: True,
    kill_pool_child: True,
    kill_worker: True,
}


def test_tasks_end_well_and_once_whatever_is_killed_under_them(ward: Ward) -> None:
    for harm, costs_a_run in HARMS.items():
        if harm is kill_pool_child and ward.pool != "prefork":
            continue
        ids = ward.begin_tasks()
        harm(ward)
        ward.end_tasks(ids)
        took = ward.evidence().takes
        retaken = [task_id for task_id in ids if took[task_id] > 1]
        assert bool(retaken) == costs_a_run, harm.__name__
    assert "browser lost during a task" in ward.stage.workers[0].log
    entry = Entry(0, "accepted", "page", tuple(ward.ids))
    verdict = judge(FinalStatuses((entry,), ()), ward.evidence())
    assert verdict.committed == len(ward.ids)
    assert verdict.committed_twice == ()
    assert verdict.failed == 0

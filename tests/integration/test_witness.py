"""What the process list tells of real instances, and what it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from swarm import unitctl, witness
from swarm.unitctl import Command
from tests.builders import make_cgroups
from tests.integration.delivery_stage import DeliveryStage
from tests.integration.stage import Stage
from tests.integration.worker_process import WorkerProcess
from tests.loopback import wait_until
from tests.stub_systemctl import StubSystemctl

GROUP = "/swarm.slice/worker.service"


class Watched:
    """A worker whose processes are listed as those of a unit are."""

    def __init__(self, worker: WorkerProcess, root: Path) -> None:
        self.pid = worker.process.pid
        self.root = root

    def list(self) -> None:
        family = psutil.Process(self.pid).children(recursive=True)
        make_cgroups(self.root, GROUP, self.pid, *(process.pid for process in family))

    def look(self) -> witness.Witness:
        self.list()
        seen = witness.look(GROUP, self.pid, roots=(self.root,))
        assert seen is not None
        return seen

    def renderers(self) -> int:
        return self.look().renderers

    def cpu_share(self, seconds: float) -> float:
        """Of one processor, over some time."""
        before = self.look().cpu_s
        time.sleep(seconds)
        return (self.look().cpu_s - before) / seconds


def page(stage: Stage, *, ms: int) -> dict[str, Any]:
    return {"url": stage.site.url(f"/slow?ms={ms}"), "actions": [{"kind": "text"}]}


@pytest.mark.parametrize(("pool", "places"), [("prefork", 2), ("threads", 2), ("solo", 1)])
def test_there_is_a_renderer_for_each_page_and_none_without(
    stage: Stage, tmp_path: Path, pool: str, places: int
) -> None:
    worker = stage.run_ready(CELERY_POOL=pool, CELERY_CONCURRENCY=str(places))
    watched = Watched(worker, tmp_path / "cgroup")
    wait_until(lambda: watched.renderers() == 0, timeout_s=3, what="the end of the sandbox's test")
    visits = len(stage.site.visits)
    ids = [stage.client.submit("browser", page(stage, ms=4000)) for _ in range(places)]
    wait_until(lambda: len(stage.site.visits) == visits + places, what="the visits")
    # They wait for the site: the processor is as idle as without them.
    assert watched.renderers() == places
    for task_id in ids:
        assert stage.client.result(task_id, wait_s=20).state == "done"
    wait_until(lambda: watched.renderers() == 0, timeout_s=3, what="no renderer")
    assert {watched.renderers() for _ in range(20)} == {0}, "a warm browser has none"


def test_of_other_tasks_only_those_that_compute_are_seen(stage: Stage, tmp_path: Path) -> None:
    delivery = DeliveryStage(stage)
    watched = Watched(delivery.worker(), tmp_path / "cgroup")
    share = wait_for(lambda: watched.cpu_share(2), below=0.1)
    computing = delivery.send("compute", 6)
    wait_until(lambda: "compute" in delivery.runs(), what="its begin")
    assert watched.cpu_share(2) > max(0.2, 2 * share)
    computing.get(timeout=20)
    waiting = delivery.send("note", "waiting", 5)
    wait_until(lambda: "waiting" in delivery.runs(), what="its begin")
    wait_for(lambda: watched.cpu_share(1), below=0.1)
    assert not waiting.ready(), "it runs, and the process list does not tell"
    delivery.app.close()


def wait_for(share: Callable[[], float], *, below: float) -> float:
    """The first that is so low; other programs may be busy on this machine."""
    for _ in range(5):
        seen = share()
        if seen < below:
            return seen
    pytest.fail("with nothing to do it is busy")


def test_unitctl_drains_a_real_instance_and_sees_its_page(
    stage: Stage, tmp_path: Path, systemctl: StubSystemctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = stage.run_ready()
    watched = Watched(worker, tmp_path / "cgroup")
    systemctl.add("celery-browser@1.service", main_pid=worker.process.pid, control_group=GROUP)
    monkeypatch.setenv("PATH", systemctl.environ["PATH"])
    monkeypatch.setattr(witness, "ROOTS", (watched.root,))

    def tell(verb: unitctl.Verb) -> dict[str, Any]:
        watched.list()
        return unitctl.tell(Command(verb, "browser", 1), stage.directory / "control")

    visits = len(stage.site.visits)
    running = stage.client.submit("browser", page(stage, ms=3000))
    wait_until(lambda: len(stage.site.visits) > visits, what="the visit")
    told = tell("drain")
    assert (told["state"], told["sequence"], told["witness"]["renderers"]) == ("stopping", 2, 1)
    waiting = stage.client.submit("browser", page(stage, ms=0))
    assert stage.client.result(running, wait_s=20).state == "done"
    wait_until(lambda: tell("drain")["state"] == "idle", timeout_s=3, what="idle")
    wait_until(lambda: tell("drain")["witness"]["renderers"] == 0, timeout_s=3, what="no page")
    wait_until(lambda: worker.status()["drain"]["state"] == "idle", timeout_s=3, what="the file")
    [listed] = unitctl.list_instances(stage.directory / "instances")["instances"]
    assert listed["witness"]["renderers"] == 0
    assert listed["status"]["drain"]["sequence"] == told["sequence"] + 1
    told = tell("undrain")
    assert (told["state"], told["sequence"]) == ("consuming", 4)
    assert stage.client.result(waiting, wait_s=20).state == "done"

"""What systemd does with the units of a stub: it runs them, here as real workers."""

from __future__ import annotations

import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Self

import psutil

from swarm.unit_entry import instance_of
from tests.builders import make_cgroups
from tests.integration.delivery_stage import TASKS, DeliveryStage
from tests.integration.worker_process import WorkerProcess
from tests.stub_systemctl import StubSystemctl

_TICK_S = 0.05


@dataclass
class Unit:
    """A `celery-analysis@N` that was started."""

    worker: WorkerProcess
    runs: bool = False
    stops: bool = False


@dataclass
class Stopped:
    """How an instance was when it was told to stop, by its own word."""

    number: int
    tasks: int
    drain: str | None


@dataclass
class RunningUnits:
    """Starts and stops workers as the stub's unit files come and go, while it is entered."""

    delivery: DeliveryStage
    systemctl: StubSystemctl
    stopped: list[Stopped] = field(default_factory=list)
    _units: dict[str, Unit] = field(default_factory=dict)
    _end: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="units")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        assert self._thread is not None
        self._thread.join()

    def workers(self) -> list[WorkerProcess]:
        return [unit.worker for unit in list(self._units.values()) if unit.runs and not unit.stops]

    def _run(self) -> None:
        while not self._end.wait(_TICK_S):
            shown = {path.name for path in (self.systemctl.state / "units").iterdir()}
            for name in shown - self._units.keys():
                self._start(name)
            for name, unit in list(self._units.items()):
                self._tend(name, unit, is_shown=name in shown)

    def _start(self, name: str) -> None:
        instance = instance_of(name)
        assert instance is not None
        environ = {"RUNS": str(self.delivery.runs_path), "CELERY_POOL": "prefork"}
        pool, number = instance
        worker = self.delivery.stage.start(pool, number, module=TASKS, **environ)
        self._units[name] = Unit(worker)

    def _tend(self, name: str, unit: Unit, *, is_shown: bool) -> None:
        process = unit.worker.process
        if process.poll() is not None:
            with suppress(FileNotFoundError):
                self.systemctl.remove(name)
            del self._units[name]
        elif not is_shown and not unit.stops:
            unit.stops = True
            self.systemctl.add(name, active_state="deactivating", main_pid=process.pid)
            self._note_stop(name, unit)
            process.send_signal(signal.SIGTERM)
        elif not unit.stops:
            family = [process.pid]
            with suppress(psutil.NoSuchProcess):
                family += [
                    each.pid for each in psutil.Process(process.pid).children(recursive=True)
                ]
            make_cgroups(self.delivery.stage.directory / "cgroups", f"/{name}", *family)
            if unit.worker.ready and not unit.runs:
                unit.runs = True
                self.systemctl.add(name, main_pid=process.pid, control_group=f"/{name}")

    def _note_stop(self, name: str, unit: Unit) -> None:
        instance = instance_of(name)
        assert instance is not None
        word = unit.worker.status()
        drain = word.get("drain") or {}
        tasks = word["active"] + word["reserved"]
        self.stopped.append(Stopped(instance[1], tasks, drain.get("state")))

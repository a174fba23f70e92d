"""Real processes on loopback: instances, Flower and scaler as their units run them, and stock.

What is not real is systemd: `systemctl` is a stub that shows the instances as running, and the
processes are this one's children.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jinja2
import psutil
import yaml

from tests.loopback import (
    NotifySocket,
    RedisServer,
    flower_answers,
    free_port,
    free_port_base,
    wait_until,
)
from tests.stub_bus import StubBus
from tests.stub_systemctl import StubSystemctl

REPOSITORY = Path(__file__).parents[1]
TIMEOUT_S = 60.0
POOL = "analysis"
HOST = "here"
_AUTH = "swarm:flower-password"

Events = Literal["configured", "on", "off"]
Process = subprocess.Popen[bytes]


def redis_server(directory: Path) -> RedisServer:
    """A Redis that keeps what it is told, as the deployed one does; to be entered."""
    directory.mkdir()
    return RedisServer(directory, options=("--appendonly", "yes"))


@dataclass(frozen=True)
class Fleet:
    """A config.yaml of one pool, and a directory for what its processes leave.

    One pool of analysis instances: they need no Chromium, and deliver as the others do.
    """

    directory: Path
    flower_port: int

    @classmethod
    def configure(cls, directory: Path, *, instances: int = 1, budget: str | None = None) -> Fleet:
        """Write the files; the scaler finds as many instances as it wants.

        With a `budget`, such as `500000/month`, the broker is a metered one.
        """
        fleet = cls(directory, free_port())
        for path in (directory, fleet.status_directory, fleet.credentials, directory / "state"):
            path.mkdir()
        document: dict[str, dict[str, Any]] = {
            "pools": {
                POOL: {
                    "task_type": "analysis",
                    "queues": [POOL],
                    "min_instances": instances,
                    "max_instances": instances,
                    "metrics_port_base": free_port_base(),
                }
            },
            "hosts": {HOST: {"address": "local", "max_instances": instances}},
            "scaler": {
                "metrics_port": free_port(),
                "state_directory": str(directory / "state"),
                "data_directory": str(directory / "state"),
            },
            "flower": {"url": f"http://127.0.0.1:{fleet.flower_port}"},
            "worker": {"status_directory": str(fleet.status_directory)},
        }
        if budget is not None:
            document["brokers"] = {"primary": {"budget": {"limit": budget}}}
        fleet.config.write_text(yaml.safe_dump(document), encoding="utf-8")
        (fleet.credentials / "flower-auth").write_text(_AUTH, encoding="utf-8")
        return fleet

    @property
    def config(self) -> Path:
        return self.directory / "config.yaml"

    @property
    def status_directory(self) -> Path:
        return self.directory / "instances"

    @property
    def credentials(self) -> Path:
        return self.directory / "credentials"

    def environ(self, redis_url: str) -> dict[str, str]:
        """Variables for whoever belongs to the fleet."""
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "SWARM_CONFIG": str(self.config),
            "SWARM_HOST": HOST,
            "REDIS_URL": redis_url,
            "CREDENTIALS_DIRECTORY": str(self.credentials),
        }

    @contextmanager
    def instance(
        self, redis_url: str, number: int = 1, *, events: Events = "configured"
    ) -> Iterator[Process]:
        """One `swarm worker`; its unit's variables, but no end after 100 tasks."""
        environ = {
            **self.environ(redis_url),
            "SWARM_POOL": POOL,
            "SWARM_INSTANCE": str(number),
            "CELERY_MAX_TASKS": "1000000",
            "CELERY_LOGLEVEL": "warning",
        }
        words = [sys.executable, "-m", "bench.instance", "--events", events]
        with told_ready(words, environ, self.directory / f"instance-{number}") as process:
            yield process

    @contextmanager
    def flower(self, redis_url: str) -> Iterator[Process]:
        """Flower by its unit's own ExecStart and the role's own configuration."""
        unit = (REPOSITORY / "systemd" / "flower@.service.j2").read_text(encoding="utf-8")
        [line] = [line for line in unit.splitlines() if line.startswith("ExecStart=")]
        program, *words = shlex.split(line.removeprefix("ExecStart="))
        configuration = self._write_flowerconfig()
        words = [
            word.replace("/etc/swarm/flowerconfig-%i.py", str(configuration)) for word in words
        ]
        program = str(Path(sys.executable).with_name(Path(program).name))
        log = self.directory / "flower.log"
        environ = {**self.environ(redis_url), "SWARM_BROKER": "primary"}
        with started([program, *words], environ, log) as process:
            _wait_for_flower(self.flower_port, process, log)
            yield process

    @contextmanager
    def scaler(self, redis_url: str, instances: Mapping[int, Process]) -> Iterator[Process]:
        """The daemon; the stub systemd shows it these instances."""
        systemctl = StubSystemctl(self.directory)
        for number, instance in instances.items():
            systemctl.add(f"celery-{POOL}@{number}.service", main_pid=instance.pid)
        environ = {**self.environ(redis_url), **systemctl.own_environ}
        words = [sys.executable, "-m", "bench.scaler", str(self.status_directory)]
        with (
            StubBus(systemctl),
            told_ready(words, environ, self.directory / "scaler") as process,
        ):
            yield process
        # It was to look on, not to act: otherwise its figures are those of another situation.
        if acts := [call for call in systemctl.calls if " show " not in call]:
            raise RuntimeError(f"the scaler acted: {acts}")

    def _write_flowerconfig(self) -> Path:
        role = REPOSITORY / "roles" / "flower"
        defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text(encoding="utf-8"))
        templates = jinja2.Environment(undefined=jinja2.StrictUndefined)
        templates.filters["to_json"] = json.dumps
        text = (role / "templates" / "flowerconfig.py.j2").read_text(encoding="utf-8")
        path = self.directory / "flowerconfig.py"
        broker = {"name": "primary", "port": self.flower_port}
        rendered = templates.from_string(text).render({**defaults, "flower_broker": broker})
        path.write_text(rendered, encoding="utf-8")
        return path


@contextmanager
def stock_worker(
    redis_url: str,
    log: Path,
    *words: str,
    app: Literal["defaults", "careful", "browsing"] = "defaults",
    concurrency: int = 1,
) -> Iterator[Process]:
    """`celery worker`; it may not be ready yet."""
    command = [sys.executable, "-m", "celery", "-A", f"bench.stock:{app}", "worker"]
    command += [f"--concurrency={concurrency}", f"--hostname={app}@{HOST}", *words]
    with started(command, stock_environ(redis_url), log) as process:
        yield process


@contextmanager
def stock_flower(redis_url: str, log: Path) -> Iterator[Process]:
    """Flower as it comes."""
    port = free_port()
    command = [sys.executable, "-m", "celery", "-A", "bench.stock:defaults", "flower"]
    command += [f"--port={port}", "--address=127.0.0.1"]
    with started(command, stock_environ(redis_url), log) as process:
        _wait_for_flower(port, process, log)
        yield process


def stock_environ(redis_url: str) -> dict[str, str]:
    """Variables for stock's workers, producers and Flower."""
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "CELERY_BROKER_URL": redis_url,
        "CELERY_RESULT_BACKEND": redis_url,
    }


@contextmanager
def started(words: Sequence[str], environ: Mapping[str, str], log: Path) -> Iterator[Process]:
    """A process that is ended at the end, with all it started.

    Raises:
        RuntimeError: it ended by itself with an error; the message has its last words.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            words, env=environ, stdout=output, stderr=output, cwd=REPOSITORY, start_new_session=True
        )
    try:
        yield process
        if process.poll() not in {None, 0}:
            raise RuntimeError(f"{shlex.join(words)} failed:\n{_last_words(log)}")
    finally:
        end(process)


def tell_to_stop(processes: Iterable[Process]) -> None:
    """SIGTERM to all at once: they then need the time of the slowest, not of all together."""
    for process in processes:
        process.send_signal(signal.SIGTERM)


def end(process: Process) -> None:
    """As systemd would: SIGTERM to the main process, SIGKILL to all after a while."""
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for member in family:
            if member.is_running():
                member.kill()


@contextmanager
def told_ready(words: Sequence[str], environ: Mapping[str, str], home: Path) -> Iterator[Process]:
    """A service of ours that has said READY=1, as systemd would wait for it."""
    home.mkdir(exist_ok=True)
    (home / "notify").unlink(missing_ok=True)
    notify = NotifySocket(home)
    log = home / "log"
    try:
        with started(words, {**environ, "NOTIFY_SOCKET": str(notify.path)}, log) as process:
            wait_until(
                lambda: "READY=1" in notify.told or process.poll() is not None,
                timeout_s=TIMEOUT_S,
                what=f"READY=1 of {shlex.join(words)}",
            )
            if "READY=1" not in notify.told:
                raise RuntimeError(f"{shlex.join(words)} ended:\n{_last_words(log)}")
            yield process
    finally:
        notify.close()


def _wait_for_flower(port: int, process: Process, log: Path) -> None:
    def answers() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"Flower ended:\n{_last_words(log)}")
        return flower_answers(port)

    wait_until(answers, timeout_s=TIMEOUT_S, what="Flower")


def _last_words(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]

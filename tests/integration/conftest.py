"""Real Redis, Flower, workers and Chromium, each on ports and in directories of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import yaml
from celery import Celery

from lab.pages import DemoServer
from lab.pages import Handler as PageHandler
from swarm.celery_app import celery_configuration
from swarm.client import Client
from swarm.environment import read_broker
from swarm.settings import Settings, load_settings
from tests.loopback import REDIS, NotifySocket, RedisServer, free_port, wait_until

REPOSITORY = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium-headless-shell")
#: Tests import these from here too.
__all__ = ["NotifySocket", "RedisServer", "free_port", "wait_until"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if REPOSITORY / "tests" / "integration" in item.path.parents:
            item.add_marker(pytest.mark.integration)


def need(program: Path, package: str) -> None:
    """Skip where a tool is missing, but never in continuous integration."""
    if program.exists():
        return
    message = f"{program} is missing: apt install {package}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


class Site(DemoServer):
    """The demo's pages, and some that misbehave."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), time.sleep)
        self.RequestHandlerClass = _MisbehavingHandler
        self.visits: list[str] = []
        self.fail_first: dict[str, int] = {}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


_REMEMBER = """<title>Memory</title><body></body><script>
const before = [document.cookie, localStorage.getItem("visited")].join("|");
document.cookie = "visited=yes"; localStorage.setItem("visited", "yes");
document.body.textContent = `before: ${before}, after: ${document.cookie}`;
</script>"""
_MISBEHAVING = {
    "/loop": "<title>Loop</title><script>while (true) {}</script>",
    "/later-loop": "<title>Loop</title><script>setTimeout(() => { while (true) {} }, 50)</script>",
    "/big": f"<title>Big</title><p>{'word ' * 100_000}</p>",
    "/memory": _REMEMBER,
}


class _MisbehavingHandler(PageHandler):
    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        assert isinstance(self.server, Site)
        self.server.visits.append(self.path)
        left = self.server.fail_first.get(self.path, 0)
        if left:
            self.server.fail_first[self.path] = left - 1
            self._send(503, "<title>Not now</title>")
        elif self.path in self.server.fail_first:
            self._send(200, "<title>At last</title><p>Here it is.</p>")
        elif self.path in _MISBEHAVING:
            self._send(200, _MISBEHAVING[self.path])
        else:
            super().do_GET()

    def _send(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@dataclass
class WorkerProcess:
    """A `swarm worker` as its unit would run it."""

    process: subprocess.Popen[bytes]
    notify: NotifySocket
    log_path: Path
    status_path: Path
    metrics_url: str

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    @property
    def ready(self) -> bool:
        return "READY=1" in self.notify.told

    def wait_ready(self) -> None:
        wait_until(lambda: self.ready or self.process.poll() is not None, what="READY=1")
        assert self.ready, self.log

    def wait_exit(self, *, timeout_s: float = 20.0) -> int:
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the worker did not exit within {timeout_s:g} s:\n{self.log}")

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.status_path.read_bytes())
        return document

    def metrics(self) -> str:
        with urllib.request.urlopen(self.metrics_url, timeout=5) as answer:
            return str(answer.read().decode())

    def browsers(self) -> list[psutil.Process]:
        """Chromium's main processes under this worker."""
        return [
            process
            for process in psutil.Process(self.process.pid).children(recursive=True)
            if "--remote-debugging-pipe" in _command(process)
            and not any(word.startswith("--type=") for word in _command(process))
            and "headless" in _command(process)[0]
        ]

    def burning_renderers(self) -> list[psutil.Process]:
        """Chromium's renderers that use most of a processor over half a second."""
        renderers = [
            process
            for process in psutil.Process(self.process.pid).children(recursive=True)
            if "--type=renderer" in _command(process)
        ]
        before = [process.cpu_times().user for process in renderers]
        time.sleep(0.5)
        return [
            process
            for process, user in zip(renderers, before, strict=True)
            if process.is_running() and process.cpu_times().user - user > 0.2
        ]

    def kill(self) -> None:
        """End it with all it started."""
        if self.process.poll() is None:
            family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            for process in family:
                try:
                    process.kill()
                except psutil.NoSuchProcess:
                    continue
            psutil.wait_procs(family, timeout=5)
        self.notify.close()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [""]
    except psutil.Error:
        return [""]


@dataclass
class Stage:
    """Everything a test of workers needs."""

    directory: Path
    redis: RedisServer
    site: Site
    config: Path
    workers: list[WorkerProcess] = field(default_factory=list)
    _app: Celery | None = None

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    @property
    def environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "SWARM_CONFIG": str(self.config),
            "REDIS_URL": self.redis.url,
            "SWARM_HOST": "here",
        }

    @property
    def client(self) -> Client:
        if self._app is None:
            self._app = Celery("test", set_as_current=False)
            broker = read_broker({"REDIS_URL": self.redis.url})
            self._app.config_from_object(celery_configuration(self.settings, broker))
        return Client(self._app)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        if self._app is not None:
            self._app.close()

    def write_config(self, **changes: Mapping[str, Any]) -> None:
        document = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        for section, values in changes.items():
            document.setdefault(section, {}).update(values)
        self.config.write_text(yaml.safe_dump(document), encoding="utf-8")

    def start(
        self, pool: str = "browser", number: int = 1, *, module: str = "", **environ: str
    ) -> WorkerProcess:
        """Start an instance; it may not be ready yet. `module` adds tasks of a test's own."""
        home = self.directory / f"{pool}-{number}-{len(self.workers)}"
        home.mkdir()
        notify = NotifySocket(home)
        log_path = home / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    f"{f'import {module}; ' if module else ''}from swarm.cli import main; main()",
                    "worker",
                ],
                env={
                    **self.environ,
                    "SWARM_POOL": pool,
                    "SWARM_INSTANCE": str(number),
                    "NOTIFY_SOCKET": str(notify.path),
                    **environ,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        port = (
            self.settings.pools[pool].metrics_port_base + number
            if pool in self.settings.pools
            else 0
        )
        worker = WorkerProcess(
            process,
            notify,
            log_path,
            self.directory / "instances" / f"{pool}-{number}.json",
            f"http://127.0.0.1:{port}/metrics",
        )
        self.workers.append(worker)
        return worker

    def run_ready(
        self, pool: str = "browser", number: int = 1, *, module: str = "", **environ: str
    ) -> WorkerProcess:
        worker = self.start(pool, number, module=module, **environ)
        worker.wait_ready()
        return worker

    def swarm(self, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """The command line."""
        return subprocess.run(
            [sys.executable, "-c", "from swarm.cli import main; main()", *words],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need(REDIS, "redis-tools")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


@dataclass
class Flower:
    """A Flower that runs our Celery app, as its unit does."""

    stage: Stage
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    auth: ClassVar[str] = "swarm:flower-pw"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        configuration = self.stage.directory / "flowerconfig.py"
        configuration.write_text(
            f"port = {self.port}\naddress = '127.0.0.1'\nbasic_auth = ['{self.auth}']\n",
            encoding="utf-8",
        )
        words = f"-m celery -A swarm.celery_app flower --conf={configuration}".split()
        with (self.stage.directory / "flower.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words], env=self.stage.environ, stdout=log, stderr=log
            )
        wait_until(self._answers, what="Flower")

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthcheck", timeout=2):
                return True
        except urllib.error.HTTPError as exc:
            exc.close()
            return True
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)


@pytest.fixture(scope="module")
def flower(shared: Stage) -> Iterator[Flower]:
    """One Flower on the Redis of all tests."""
    flower = Flower(shared)
    flower.start()
    yield flower
    flower.stop()


def make_stage(directory: Path, redis: RedisServer, site: Site) -> Stage:
    for name in ("instances", "artifacts"):
        (directory / name).mkdir()
    config = directory / "config.yaml"
    document = {
        "pools": {
            "browser": {
                "task_type": "browser",
                "queues": ["browser"],
                "max_instances": 4,
                "metrics_port_base": 21000 + free_port() % 9000,
            },
            "analysis": {
                "task_type": "analysis",
                "queues": ["analysis"],
                "metrics_port_base": 31000 + free_port() % 1000,
            },
        },
        "hosts": {"here": {"address": "local", "max_instances": 8}},
        "browser": {
            # Chromium's sandbox is not for root, as whom continuous integration runs.
            "sandbox": os.geteuid() != 0,
            "executable": str(CHROMIUM),
            "artifacts_directory": str(directory / "artifacts"),
        },
        "worker": {"status_directory": str(directory / "instances")},
    }
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    return Stage(directory, redis, site, config)


@pytest.fixture
def stage(tmp_path: Path, redis_server: RedisServer, site: Site) -> Iterator[Stage]:
    """A stage of its own, on an empty Redis."""
    need(CHROMIUM, "chromium-headless-shell")
    with redis_server.connect() as redis:
        redis.flushall()
    stage = make_stage(tmp_path, redis_server, site)
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, site: Site
) -> Iterator[Stage]:
    """One stage for all tests of a module that do not disturb each other."""
    need(CHROMIUM, "chromium-headless-shell")
    with redis_server.connect() as redis:
        redis.flushall()
    stage = make_stage(tmp_path_factory.mktemp("stage"), redis_server, site)
    yield stage
    stage.close()

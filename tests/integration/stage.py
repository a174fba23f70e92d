"""A config.yaml with all that it names: Redis, a site, workers, the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from swarm.brokers import Brokers
from swarm.celery_app import celery_configuration
from swarm.client import Client
from swarm.config import load_settings
from swarm.delivery.app import Brokerage, DeliveryCelery
from swarm.environment import read_broker
from swarm.settings import Settings
from tests.integration.pages import Site
from tests.integration.worker_process import WorkerProcess
from tests.loopback import NotifySocket, RedisServer, free_port_base
from tests.programs import CHROMIUM

REPOSITORY = Path(__file__).parents[2]


@dataclass
class Stage:
    """Everything a test of workers needs."""

    directory: Path
    redis: RedisServer
    site: Site
    config: Path
    workers: list[WorkerProcess] = field(default_factory=list)
    _app: DeliveryCelery | None = None

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
    def app(self) -> DeliveryCelery:
        if self._app is None:
            broker = read_broker({"REDIS_URL": self.redis.url})
            self._app = DeliveryCelery(
                "test", set_as_current=False, read_brokerage=lambda: Brokerage(Brokers(broker))
            )
            self._app.config_from_object(celery_configuration(self.settings, broker))
        return self._app

    @property
    def client(self) -> Client:
        return Client(self.app)

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        if self._app is not None:
            self._app.close()

    def pool(self, name: str) -> dict[str, Any]:
        """What config.yaml says of it, to be written with changes."""
        document = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        pool: dict[str, Any] = document["pools"][name]
        return pool

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


def make_stage(directory: Path, redis: RedisServer, site: Site) -> Stage:
    for name in ("instances", "artifacts", "control", "spool", "scaler"):
        (directory / name).mkdir()
    config = directory / "config.yaml"
    document = {
        "pools": {
            "browser": {
                "task_type": "browser",
                "queues": ["browser"],
                "max_instances": 4,
                "metrics_port_base": free_port_base(),
            },
            "analysis": {
                "task_type": "analysis",
                "queues": ["analysis"],
                "metrics_port_base": free_port_base(),
            },
        },
        "hosts": {"here": {"address": "local", "max_instances": 8}},
        "scaler": {"data_directory": str(directory / "scaler")},
        "browser": {
            # Chromium's sandbox is not for root, as whom continuous integration runs.
            "sandbox": os.geteuid() != 0,
            "executable": str(CHROMIUM),
            "artifacts_directory": str(directory / "artifacts"),
        },
        "worker": {
            "status_directory": str(directory / "instances"),
            "control_directory": str(directory / "control"),
            "spool_directory": str(directory / "spool"),
        },
    }
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    return Stage(directory, redis, site, config)

"""Flower as its unit runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from tests.integration.stage import Stage
from tests.loopback import flower_answers, free_port, wait_until


@dataclass
class Flower:
    """A Flower that runs our Celery app, as its unit does."""

    stage: Stage
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    """What it is told beside or in place of what the stage says."""
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
                [sys.executable, *words],
                env={**self.stage.environ, **self.variables},
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: flower_answers(self.port), what="Flower")

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(10)

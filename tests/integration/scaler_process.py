"""The daemon as its unit runs it, with a stub in systemd's place."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from tests.integration.stage import Stage
from tests.loopback import NotifySocket
from tests.stub_systemctl import StubSystemctl


class ScalerProcess:
    """A `swarm scaler run` as its unit would run it."""

    def __init__(
        self,
        stage: Stage,
        systemctl: StubSystemctl,
        auth: str,
        *,
        reads_status: bool,
        dry_run: bool,
        environ: Mapping[str, str],
    ) -> None:
        credentials = stage.directory / "credentials"
        credentials.mkdir(exist_ok=True)
        (credentials / "flower-auth").write_text(auth, encoding="utf-8")
        self.notify = NotifySocket(stage.directory)
        self.log_path = stage.directory / "scaler.log"
        self.state_path = stage.settings.scaler.state_directory / "status.json"
        self.url = f"http://127.0.0.1:{stage.settings.scaler.metrics_port}"
        words = ["-c", "from swarm.cli import main; main()", "scaler", "run"]
        if reads_status:
            # The same daemon, told where the stage's instances leave their status files.
            words = ["-m", "bench.scaler", str(stage.settings.worker.status_directory)]
        elif dry_run:
            words.append("--dry-run")
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                env={
                    **stage.environ,
                    **systemctl.own_environ,
                    "CREDENTIALS_DIRECTORY": str(credentials),
                    "NOTIFY_SOCKET": str(self.notify.path),
                    **environ,
                },
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def state(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.state_path.read_bytes())
        return document

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.notify.close()


Start = Callable[..., ScalerProcess]

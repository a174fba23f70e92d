"""A worker as its unit runs it, and what can be seen of it from outside."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.loopback import NotifySocket, wait_until


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

    def wait_told(self, words: str) -> None:
        """Until systemd has been told so; the status file says it a little earlier."""
        wait_until(lambda: words in "\n".join(self.notify.told), timeout_s=5, what=f"{words!r}")

    def wait_ready(self) -> None:
        wait_until(
            lambda: self.ready or self.process.poll() is not None, timeout_s=60, what="READY=1"
        )
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

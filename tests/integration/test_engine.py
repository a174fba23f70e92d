"""The engine on a host whose Chromium has broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from swarm.browse.directory_store import DirectoryStore
from swarm.browse.engine import Engine
from swarm.browse.errors import JobError
from swarm.browse.payload import parse_browser_job
from swarm.browse.secrets import Secrets
from swarm.browse.visit import Deployment
from swarm.settings import BrowserSettings
from tests.integration.stage import REPOSITORY
from tests.programs import CHROMIUM, need


def descendants(name: str) -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if name in p.name()]


def test_failed_launches_leave_no_drivers_behind(tmp_path: Path) -> None:
    """In a process of its own, as an engine kills every descendant of its process."""
    need(CHROMIUM, "chromium-headless-shell")
    module = "tests.integration.test_engine"
    program = f"from {module} import break_launches; break_launches({str(tmp_path)!r})"
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def break_launches(directory: str) -> None:
    tmp_path = Path(directory)
    broken = tmp_path / "broken"
    executable = tmp_path / "chromium"
    executable.write_text(f'#!/bin/sh\n[ ! -e {broken} ] || exit 1\nexec {CHROMIUM} "$@"\n')
    executable.chmod(0o755)
    settings = BrowserSettings(executable=executable, sandbox=False)
    events: list[str] = []
    deployment = Deployment(settings, DirectoryStore(tmp_path, host="h"), Secrets({}))
    engine = Engine(deployment, on_event=lambda event, _cause: events.append(event))
    job = parse_browser_job(
        {"url": "http://127.0.0.1:9/", "actions": [{"kind": "text"}], "limits": {"deadline_s": 20}}
    )
    engine.start()
    try:
        broken.touch()
        for process in descendants("chrom"):
            process.kill()
        for _ in range(4):
            with pytest.raises(JobError):
                engine.run(job)
        assert len(descendants("node")) <= 1
        broken.unlink()
        with pytest.raises(JobError, match="URL_BLOCKED"):
            engine.run(job)
        assert events.count("launched") == 2
    finally:
        engine.stop()
    assert descendants("node") == []

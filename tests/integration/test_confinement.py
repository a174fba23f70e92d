"""Workers whose Chromium has no sandbox refuse to work; one that has it does not mind the check."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.browse.directory_store import DirectoryStore
from swarm.browse.engine import Engine
from swarm.browse.secrets import Secrets
from swarm.browse.visit import Deployment
from swarm.settings import BrowserSettings
from tests.integration.stage import REPOSITORY, Stage
from tests.programs import CHROMIUM, need


def wrap(stage: Stage, command: str) -> None:
    """Have a sandbox wanted of a browser that is started so."""
    wrapper = stage.directory / "chromium"
    wrapper.write_text(f"#!/bin/sh\n{command}\n")
    wrapper.chmod(0o755)
    stage.write_config(browser={"sandbox": True, "executable": str(wrapper)})


@pytest.mark.parametrize("pool", ["prefork", "solo", "threads"])
def test_a_worker_without_the_sandbox_that_it_wants_ends_with_2(stage: Stage, pool: str) -> None:
    """As with a wrapper, or a file in /etc/chromium.d, that says --no-sandbox."""
    wrap(stage, f'exec {CHROMIUM} --no-sandbox "$@"')
    worker = stage.start(CELERY_POOL=pool)
    assert worker.wait_exit(timeout_s=40) == 2, worker.log
    assert not worker.ready
    assert worker.log.count("no sandbox, as a renderer has no user namespace of its own") == 1
    assert worker.log.count("browser.sandbox: false") == 1


def test_false_in_words_does_without(stage: Stage) -> None:
    wrap(stage, f'exec {CHROMIUM} --no-sandbox "$@"')
    stage.write_config(browser={"sandbox": False})
    worker = stage.run_ready()
    assert "no sandbox" not in worker.log


def test_a_worker_whose_chromium_refuses_ends_with_2(stage: Stage) -> None:
    """As to root, whoever runs this test."""
    wrap(stage, f'exec unshare --map-root-user {CHROMIUM} "$@"')
    worker = stage.start(CELERY_POOL="solo")
    assert worker.wait_exit(timeout_s=40) == 2, worker.log
    assert "no sandbox, as Chromium can have none here" in worker.log


def test_a_real_sandbox_passes() -> None:
    """As nobody where this is root, who has none."""
    need(CHROMIUM, "chromium-headless-shell")
    module = "tests.integration.test_confinement"
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import start_confined; start_confined()"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def start_confined() -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
        os.environ["HOME"] = "/tmp"
    store = DirectoryStore(Path("/nonexistent"), host="h")
    settings = BrowserSettings(executable=CHROMIUM)
    assert settings.sandbox
    engine = Engine(Deployment(settings, store, Secrets({})))
    engine.start()
    engine.stop()

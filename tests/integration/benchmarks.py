"""Runs a benchmark as `make` does, with little to do: whether it works is all there is to see."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.integration.stage import REPOSITORY
from tests.loopback import REDIS
from tests.programs import need


def run_benchmark(module: str, *words: str) -> dict[str, Any]:
    """The object on its last line."""
    need(REDIS, "redis-tools")
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures

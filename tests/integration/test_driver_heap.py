"""The driver's garbage is collected while there is little of it."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import psutil
import pytest
from playwright._impl._driver import compute_driver_executable

from swarm.browse import driver
from swarm.browse.driver import Driver

_HEAP = Path(driver.__file__).with_name("driver_heap.cjs")
# Drops what it held for long, and ends once that is gone. It goes on making a little garbage: V8
# collects the old generation of a process that does nothing by itself.
_DROP = """
const used = () => process.memoryUsage().heapUsed;
let held = Array.from({length: 400000}, (_, number) => ({number, words: [number]}));
let full = 0;
setTimeout(() => { full = used(); held = null; }, 500);
setInterval(() => {
  Array.from({length: 1000}, (_, number) => [number]);
  if (held === null && used() < full / 2) process.exit(0);
}, 20);
"""


def test_garbage_that_grew_old_is_collected() -> None:
    node, _ = compute_driver_executable()
    words = [node, "--trace-gc", f"--require={_HEAP}", "-e", _DROP]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    # V8 calls a collection that was asked for so.
    assert "testing" in ended.stdout


def test_the_driver_is_started_with_it_beside_the_options_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NODE_OPTIONS", "--no-warnings")

    async def options_of_one() -> str:
        before = set(psutil.Process().children())
        started = await Driver.start()
        (process,) = set(psutil.Process().children()) - before
        try:
            return process.environ()["NODE_OPTIONS"]
        finally:
            await started.stop()

    assert asyncio.run(options_of_one()) == f'--no-warnings --require="{_HEAP}"'
    asyncio.run(options_of_one())
    assert os.environ["NODE_OPTIONS"].count("--require") == 1

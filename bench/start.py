"""How soon an instance is ready, does its first task, and stops when idle.

`make bench-start` runs real `swarm worker` processes on loopback with a Redis of their own, each
in turn with a bare Playwright that starts its driver and the same Chromium: the least that any
start can take. The last line is one JSON object of medians, in seconds, and their ratio.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import yaml

from bench.page import CHROMIUM, served
from lab.pages import make_server
from swarm.celery_app import app
from swarm.client import Client
from tests.loopback import RedisServer, free_port_base

ROUNDS = 5
TIMEOUT_S = 60.0

_BARE_START = f"""
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path={CHROMIUM!r}, chromium_sandbox=False)
    print("up", flush=True)
    browser.close()
"""


def main() -> int:
    """Measure and print."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swarm-bench-")))
        page_url = stack.enter_context(page_server())
        redis = stack.enter_context(RedisServer(directory))
        configure(directory, redis.url)
        rounds = [
            {**measure_bare(), **measure_instance(directory, page_url)} for _ in range(ROUNDS)
        ]
    medians = {key: round(median(each[key] for each in rounds), 3) for key in rounds[0]}
    ratio = median(each["ready_s"] / each["bare_start_s"] for each in rounds)
    print(json.dumps({"rounds": ROUNDS, **medians, "ready_to_bare_start": round(ratio, 2)}))
    return 0


def measure_bare() -> dict[str, float]:
    """Python, Playwright's driver and Chromium, and nothing else."""
    started = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", _BARE_START], stdout=subprocess.PIPE) as bare:
        if bare.stdout is None or bare.stdout.readline() != b"up\n":
            raise RuntimeError("bare Playwright did not start Chromium")
        return {"bare_start_s": time.monotonic() - started}


def measure_instance(directory: Path, page_url: str) -> dict[str, float]:
    """One instance from start to stop, with a task already waiting for it."""
    client = Client(app)
    payload = {"url": page_url, "actions": [{"kind": "text"}]}
    task_id = client.submit("browser", payload)
    notify = directory / "notify"
    notify.unlink(missing_ok=True)
    program = Path(sys.executable).with_name("swarm")
    environment = {
        **os.environ,
        "NOTIFY_SOCKET": str(notify),
        "SWARM_POOL": "browser",
        "SWARM_INSTANCE": "1",
        "CELERY_LOGLEVEL": "error",
    }
    # Not NotifySocket, which is looked at every now and then: this one is timed.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(notify))
        systemd.settimeout(TIMEOUT_S)
        started = time.monotonic()
        with subprocess.Popen([program, "worker"], env=environment) as worker:
            while b"READY=1" not in systemd.recv(8192):
                pass
            ready_s = time.monotonic() - started
            if client.result(task_id, wait_s=TIMEOUT_S).state != "done":
                raise RuntimeError("the task failed")
            first_task_s = time.monotonic() - started
            time.sleep(1)
            started = time.monotonic()
            worker.send_signal(signal.SIGTERM)
            worker.wait(TIMEOUT_S)
            stop_idle_s = time.monotonic() - started
    return {"ready_s": ready_s, "first_task_s": first_task_s, "stop_idle_s": stop_idle_s}


def configure(directory: Path, redis_url: str) -> None:
    """A config.yaml of one pool, for this process and the ones it starts."""
    document = {
        "pools": {
            "browser": {
                "task_type": "browser",
                "queues": ["browser"],
                "metrics_port_base": free_port_base(),
            }
        },
        "browser": {
            "executable": CHROMIUM,
            # root cannot have Chromium's sandbox; the bare start goes without it too.
            "sandbox": False,
            "artifacts_directory": str(directory),
        },
        "worker": {"status_directory": str(directory)},
    }
    config = directory / "config.yaml"
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    os.environ["SWARM_CONFIG"] = str(config)
    os.environ["REDIS_URL"] = redis_url


@contextmanager
def page_server() -> Iterator[str]:
    """The demo's pages; yields the address of one that answers at once."""
    with served(make_server("127.0.0.1", 0)) as origin:
        yield f"{origin}/page/2"


if __name__ == "__main__":
    sys.exit(main())

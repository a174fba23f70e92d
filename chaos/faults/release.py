"""The next release, which comes to one host after the other while its tasks are sent already."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import redis
from kombu.exceptions import OperationalError

from chaos import next_release
from chaos.deployed_lab import WORKERS, DeployedLab, MissedError
from chaos.fault_context import FaultContext
from chaos.schedule import Strike

NEXT_DIRECTORY = "/run/swarm-chaos"
NEXT_DROPIN = "/run/systemd/system/celery-analysis@.service.d/chaos.conf"
NEXT_TASKS = 6


def upgrade(context: FaultContext, strike: Strike) -> str:
    """One host after the other gets a release with a task that is sent already."""
    first = [strike.host, *(host for host in WORKERS if host != strike.host)]
    sent = _send_next(context)
    for host in first:
        # Whoever takes one now does not know it.
        time.sleep(4)
        install_next(context.lab, host)
        sent += _send_next(context)
    if not sent:
        raise MissedError("Redis was away")
    return f"{sent} tasks of the next release, {first[0]} first"


def _send_next(context: FaultContext) -> int:
    """As many as the broker takes, which may be away."""
    sent = 0
    for number in range(NEXT_TASKS):
        with contextlib.suppress(OperationalError, redis.RedisError):
            sent += context.send(next_release.NAME, number, "next")
    return sent


def install_next(lab: DeployedLab, host: str) -> None:
    """An instance of the next release: this one, with one task more."""
    source = Path(next_release.__file__).read_text(encoding="utf-8")
    start = "import next_release; from swarm.cli import main; main()"
    dropin = (
        f"[Service]\nEnvironment=PYTHONPATH={NEXT_DIRECTORY}\nExecStart=\n"
        f'ExecStart=/opt/swarm/current/bin/python -c "{start}" worker\n'
    )
    lab.write(host, f"{NEXT_DIRECTORY}/next_release.py", source)
    lab.write(host, NEXT_DROPIN, dropin)
    lab.on(host, "systemctl daemon-reload; systemctl try-restart --no-block 'celery-analysis@*'")


def remove_next(lab: DeployedLab, host: str) -> None:
    """Back to the release that is deployed."""
    there = lab.on(host, f"test -e {NEXT_DROPIN} && echo there || true")
    if there:
        lab.on(
            host,
            f"rm -r {NEXT_DROPIN} {NEXT_DIRECTORY}; systemctl daemon-reload; "
            "systemctl try-restart --no-block 'celery-analysis@*'",
        )

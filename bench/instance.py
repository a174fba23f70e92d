"""Ours: `swarm worker` with the benchmarks' own tasks, which do next to nothing."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from celery import signals

import swarm.cli
from bench import stock
from swarm.celery_app import app
from swarm.client import Client

clock = app.task(name="analysis.clock")(stock.clock)
nap = app.task(name="analysis.nap")(stock.nap)

PAYLOAD = {"html": "<title>A page</title><p>Some words.</p>"}


def analyse_a_page(timeout_s: float) -> None:
    """A task as producers submit it and wait for it.

    Raises:
        RuntimeError: it did not end well.
    """
    client = Client(app)
    result = client.result(client.submit("analysis", PAYLOAD), wait_s=timeout_s)
    if result.state != "done":
        raise RuntimeError(f"the task did not end well: {result}")


def main() -> None:
    """Run an instance; its environment is that of the unit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", choices=["configured", "on", "off"], default="configured")
    events = parser.parse_args().events

    def switch_events(*, sender: Any, **_: object) -> None:
        sender.task_events = events == "on"

    if events != "configured":
        signals.worker_init.connect(switch_events)
    sys.argv[1:] = ["worker"]
    swarm.cli.main()


if __name__ == "__main__":
    main()

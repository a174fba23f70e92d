"""The lab's hosts as programs use them once they run: commands on them, the swarm's settings."""

from __future__ import annotations

import os
from pathlib import Path

from lab.commands import run
from lab.state import State

REPOSITORY = Path(__file__).resolve().parent.parent
#: Where the hosts reach the demo's page server (lab/pages.yml).
PAGES_URL = "http://pages.lab:8080"


def on_host(state: State, host: str, command: str) -> str:
    """What a command prints on one of the lab's hosts."""
    return run(["ssh", "-F", str(state.ssh_config), host, command], timeout_s=60).strip()


def use_lab_settings(state: State) -> None:
    """Submit as any producer would: with the fleet's config.yaml and the broker's address."""
    config = state.directory / "config.yaml"
    config.write_text(on_host(state, "control", "cat /etc/swarm/config.yaml"), encoding="utf-8")
    os.environ["SWARM_CONFIG"] = str(config)
    os.environ["REDIS_URL"] = on_host(state, "control", "cat /etc/swarm/credentials/redis-url")

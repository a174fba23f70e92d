"""Whether the lab is at rest, by what its scaler shows: few instances, idle, nothing waiting."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from chaos.deployed_lab import CONTROL, DeployedLab
from lab.commands import LabError

#: Seconds until the lab has scaled in, its windows being short.
_TIMEOUT_S = 180.0
_PAUSE_S = 0.5


def unrest(status: Mapping[str, Any], minima: Mapping[str, int]) -> str:
    """What is not at rest in a document of `swarm status --json`; empty when all is."""
    for host, report in status["hosts"].items():
        if not report["answers"]:
            return f"{host} does not answer"
    instances = [each for report in status["hosts"].values() for each in report["instances"]]
    for pool, minimum in minima.items():
        waiting = status["pools"][pool]["waiting"]
        if waiting != 0:
            return f"of pool {pool} {'an unknown number' if waiting is None else waiting} waits"
        states = [each["state"] for each in instances if each["pool"] == pool]
        others = sorted({state for state in states if state not in {"idle", "stopped"}})
        if others:
            return f"instances of pool {pool} are {', '.join(others)}"
        if states.count("idle") != minimum:
            return f"{states.count('idle')} of pool {pool} run, at rest it is {minimum}"
    return ""


def until_at_rest(lab: DeployedLab, minima: Mapping[str, int]) -> None:
    """Until each pool has come down to so many idle instances.

    Raises:
        LabError: it does not within three minutes.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    while left := unrest(json.loads(lab.on(CONTROL.name, "swarm status --json")), minima):
        if time.monotonic() > deadline:
            raise LabError(f"not at rest after {_TIMEOUT_S:g} s: {left}")
        time.sleep(_PAUSE_S)

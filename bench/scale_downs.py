"""Hundreds of scale-downs of the deployed lab under live load: `make bench-scale-downs`.

The scaler's windows are 15 times shorter than the default, and the lab's hosts take more instances.
Tasks of varied lengths come all the time, and small waves of them make both pools go up and down,
until the scaler has stopped so many instances. Then every task is held against the broker's
append-only file, which Redis writes and no worker, and every stop against the hosts' journals.

Exit status 0 only when no task was interrupted, lost or committed twice. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import redis

from bench.lab_journal import read_journal
from bench.lab_load import Producer
from bench.lab_run import deployed_lab, from_one
from bench.lab_verdict import Accounts, ScaleDowns, decided_stops, judge_scale_downs
from bench.lab_windows import configured, short_windows
from chaos.deployed_lab import CONTROL, WORKERS, DeployedLab
from chaos.preparation import (
    begin_append_only_file,
    keep_rewriting,
    leftovers,
    read_append_only_file,
    until_at_rest,
)
from lab.commands import LabError
from swarm.celery_app import app
from swarm.client import Client
from swarm.errors import SwarmError

POOLS = ("browser", "analysis")
#: Small hosts have few places, and stops come from places: so there are more of them meanwhile.
_PLACES = {"browser": 6, "analysis": 10}
_PLACES_ON_A_HOST = 8
_LOOK_S = 10.0
_TELL_S = 60.0


def main() -> int:
    """Run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bench.scale_downs", description=__doc__)
    parser.add_argument("--stops", type=from_one, default=500, help="so many scale-downs at least")
    parser.add_argument("--minutes", type=from_one, default=60, help="give up after these")
    parser.add_argument("--seed", type=int, default=1, help="of the work")
    options = parser.parse_args()
    try:
        return run(options.stops, 60 * options.minutes, options.seed)
    except (LabError, SwarmError, redis.RedisError) as exc:
        print(f"bench-scale-downs: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run(stops: int, timeout_s: float, seed: int) -> int:
    """One run; 1 when anything is wrong, or the stops were too few.

    Raises:
        LabError: the lab is not deployed, or does not come to rest.
    """
    lab = deployed_lab()
    until_at_rest(lab)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        try:
            with configured(lab, _change(), Path(name)):
                found = _observe(lab, stops, timeout_s, seed)
        finally:
            keep_rewriting(lab)
    for problem in found.problems(stops):
        print(f"bench-scale-downs: {problem}", flush=True)
    print(json.dumps(found.summary()))
    return 1 if found.problems(stops) else 0


def _change() -> Mapping[str, Any]:
    return {
        "scaler": short_windows(),
        "pools": {name: {"max_instances": places} for name, places in _PLACES.items()},
        "hosts": {name: {"max_instances": _PLACES_ON_A_HOST} for name in WORKERS},
    }


def _observe(lab: DeployedLab, stops: int, timeout_s: float, seed: int) -> ScaleDowns:
    """Work until so many were stopped, let all of it end, and read what it came to."""
    base, began_at = begin_append_only_file(lab), time.time()
    with Producer(Client(app), seed) as producer:
        _until_stopped(lab, producer, stops, began_at, timeout_s)
    worked_s = time.time() - began_at
    until_at_rest(lab)
    accounts = Accounts.read(read_append_only_file(lab, base))
    return judge_scale_downs(
        read_journal(lab, began_at, pools=POOLS),
        accounts,
        producer.accepted,
        refused=len(producer.refusals),
        decided=decided_stops(_decisions(lab), began_at),
        left=leftovers(lab),
        seconds=worked_s,
    )


def _until_stopped(
    lab: DeployedLab, producer: Producer, stops: int, began_at: float, timeout_s: float
) -> None:
    stopped: set[str] = set()
    looked_at = told_at = began_at
    while len(stopped) < stops and time.time() - began_at < timeout_s:
        time.sleep(_LOOK_S)
        # Each look overlaps the one before: an entry is in the journal a moment after it was sent.
        journal = read_journal(lab, looked_at - _LOOK_S, pools=())
        looked_at = time.time()
        stopped |= {each.invocation for each in journal.stops if each.at >= began_at}
        if looked_at - told_at >= _TELL_S:
            told_at = looked_at
            print(
                f"{told_at - began_at:>6.0f} s {len(stopped):>5} scale-downs "
                f"{len(producer.accepted):>6} tasks accepted",
                flush=True,
            )


def _decisions(lab: DeployedLab) -> Sequence[str]:
    """The scaler's lines with stops, of all its files."""
    files = "$(ls -tr /var/lib/swarm-scaler/decisions.jsonl*)"
    return lab.on(CONTROL.name, f"zcat -f {files} | grep -F '\"stop\":[' || true").splitlines()


if __name__ == "__main__":
    sys.exit(main())

"""`make bench-fleet HOSTS=1000`: see `bench.fleet`.

Fleets of 10, of 100 and of so many hosts, ten instances on each, one after the other. The last line
is one JSON object; its first figures are those of the largest fleet while a tenth of its hosts
changes in each interval.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.fleet import report
from bench.fleet.measure import BURST, Plan, measure

_SCALES = (10, 100)
_QUICK = Plan(window_s=6.0, settle_s=1.0)
#: Files that the daemon and each process of hosts may need beside a connection to each host.
_SPARE_FILES = 100


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.fleet", description=__doc__)
    parser.add_argument("--hosts", type=int, default=1000, help="hosts of the largest fleet (1000)")
    parser.add_argument("--quick", action="store_true", help="look on for seconds only")
    options = parser.parse_args()
    if not 1 <= options.hosts <= 10_000:
        parser.error(f"--hosts: got {options.hosts}, expected a number from 1 to 10000")
    _allow_files(parser, 2 * options.hosts + _SPARE_FILES)
    plan = _QUICK if options.quick else Plan()
    scales: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="swarm-bench-") as name:
        for count in [*(each for each in _SCALES if each < options.hosts), options.hosts]:
            scales[str(count)] = figures = measure(Path(name, str(count)), count, plan)
            print(json.dumps(figures), flush=True)
    print(f"\n{report.render(scales.values())}\n")
    print(json.dumps(summary(scales)))
    return 0


def summary(scales: Mapping[str, Any]) -> dict[str, Any]:
    """The largest fleet's figures, and all of them."""
    largest = list(scales.values())[-1]
    changing, burst = largest["changing"], largest["burst"]
    return {
        "hosts": largest["hosts"],
        "instances": largest["instances"],
        "turn_p50_ms": changing["turn_p50_ms"],
        "turn_p95_ms": changing["turn_p95_ms"],
        "cpu_percent": changing["cpu_percent"],
        "rss_mb": largest["rss_mb"],
        "ssh_bytes_per_s": changing["ssh_bytes_per_s"],
        "burst_1000_starts_s": burst["last_start_s"] if burst["starts"] == BURST else None,
        "scales": scales,
    }


def _allow_files(parser: argparse.ArgumentParser, wanted: int) -> None:
    """As the unit's LimitNOFILE does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        parser.error(
            f"--hosts: takes {wanted} open files in a process, of which {hard} are allowed"
        )
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


if __name__ == "__main__":
    sys.exit(main())

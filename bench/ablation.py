"""What single changes give: `make bench-ablation`.

The raw loop and our engine do the work of `bench.throughput` as they are and with one change each
(`bench.variants`), in interleaved rounds. Beside the jobs a second stand the processor seconds that
a job took of the whole tree: they say more on a machine that does other things too. A ratio is that
of a change to what it changes, of `engine` that to `raw`; the median of the rounds' own ratios.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median

from bench import browsers, unprivileged
from bench.page import page_server
from bench.throughput import Lap
from bench.trees import CpuClock
from bench.variants import BASES, VARIANTS

_AT_ONCE = 4
_FIRST_JOBS = 8
#: Seconds for the last pages of a lap to close, which its processor time is to hold.
_REST_S = 0.3

Round = dict[str, Lap]


def measure(contestant: browsers.Contestant, jobs: int) -> Lap:
    """One turn of one variant."""
    clock = CpuClock(contestant.pid)
    seconds = contestant.run(jobs)
    time.sleep(_REST_S)
    return Lap(jobs / seconds, clock.seconds() / jobs)


def summary(rounds: list[Round]) -> dict[str, object]:
    """Medians, and medians of ratios."""
    figures: dict[str, dict[str, float]] = {}
    for name in rounds[0]:
        laps = [each[name] for each in rounds]
        figures[name] = {
            "jobs_per_s": round(median(lap.jobs_per_s for lap in laps), 2),
            "cpu_s_per_job": round(median(lap.cpu_s_per_job for lap in laps), 4),
        }
        base = BASES.get(name)
        if base in rounds[0]:
            pairs = [(each[name], each[base]) for each in rounds]
            figures[name]["speed_ratio"] = round(
                median(lap.jobs_per_s / other.jobs_per_s for lap, other in pairs), 3
            )
            figures[name]["cpu_ratio"] = round(
                median(lap.cpu_s_per_job / other.cpu_s_per_job for lap, other in pairs), 3
            )
    return {
        "rounds": len(rounds),
        "sandbox": unprivileged.can_sandbox(),
        "at_once": _AT_ONCE,
        "variants": figures,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=24, help="in a round")
    parser.add_argument(
        "--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="of these alone"
    )
    unprivileged.add_argument(parser)
    options = parser.parse_args()
    unprivileged.leave_root(options)
    rounds: list[Round] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swarm-bench-")))
        url = stack.enter_context(page_server())
        contestants = [
            (name, stack.enter_context(browsers.variant(name, _AT_ONCE, url, directory / name)))
            for name in options.only
        ]
        for _, contestant in contestants:
            contestant.run(_FIRST_JOBS)
        for number in range(1, options.rounds + 1):
            # Whoever goes first finds the machine in another state: take turns.
            contestants = contestants[1:] + contestants[:1]
            rounds.append({name: measure(who, options.jobs) for name, who in contestants})
            told = ", ".join(
                f"{name} {lap.cpu_s_per_job:.3f} s" for name, lap in rounds[-1].items()
            )
            print(f"round {number}: {told}", flush=True)
    print(json.dumps(summary(rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

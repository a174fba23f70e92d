"""How many pages a second: `make bench-throughput`.

The same work (open a page on loopback, count its 100 elements, take a picture) on the same
Chromium with the same flags, by our instances in each pool mode (through Redis and Celery), by a
raw loop of async Playwright, which is the limit, by stock Celery that starts a browser for each
task, and by Crawlee: as it comes, and lean, without the disguise that it gives each page. The pages
of a Crawlee browser share one context; ours have one each. Once more with threads, and with the
egress proxy of the role `egress` between browser and page.

All are started and have done some jobs before the first round; in a round each works in turn while
the others wait. Ratios are medians of the rounds' own ratios.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench import browsers, processes, unprivileged
from bench.browsers import Contestant, Mode
from bench.page import page_server
from bench.trees import CpuClock
from tests.role_egress import RoleEgress

#: Tasks at a time.
AT_ONCE: Mapping[Mode, int] = {"prefork": 2, "threads": 4, "solo": 1}
_RAW_AT_ONCE = 4
_STOCK_AT_ONCE = 2


@dataclass(frozen=True)
class Plan:
    """How much to measure."""

    rounds: int
    #: Jobs in a round.
    jobs: int
    #: Of stock, which takes several times as long for each.
    stock_jobs: int


@dataclass(frozen=True)
class Lap:
    """What one contestant did in one round."""

    jobs_per_s: float
    cpu_s_per_job: float


Round = dict[str, Lap]


def start_all(directory: Path, stack: ExitStack) -> dict[str, Contestant]:
    """Everybody who takes part, by name."""
    enter = stack.enter_context
    url = enter(page_server())
    redis_url = enter(processes.redis_server(directory / "redis")).url
    contestants = {
        "raw": enter(browsers.raw(_RAW_AT_ONCE, url, directory=directory / "raw")),
        "crawlee": enter(browsers.crawlee(_RAW_AT_ONCE, url, directory=directory / "crawlee")),
        "crawlee_lean": enter(
            browsers.crawlee(_RAW_AT_ONCE, url, directory=directory / "lean", lean=True)
        ),
        "stock": enter(
            browsers.stock(_STOCK_AT_ONCE, url, redis_url=redis_url, directory=directory / "stock")
        ),
    }
    for mode, at_once in AT_ONCE.items():
        contestants[mode] = enter(
            browsers.instance(mode, at_once, url, redis_url=redis_url, directory=directory / mode)
        )
    contestants["proxied"] = enter(
        browsers.instance(
            "threads",
            AT_ONCE["threads"],
            url,
            redis_url=redis_url,
            directory=directory / "proxied",
            proxy=enter(egress_proxy(directory / "egress", url)),
        )
    )
    return contestants


@contextmanager
def egress_proxy(directory: Path, url: str) -> Iterator[str]:
    """The role's squid, which lets pages open this one; yields its address."""
    directory.mkdir()
    place = urlsplit(url)
    proxy = RoleEgress(directory, allowed=[{"address": place.hostname, "port": place.port}])
    try:
        proxy.start()
        yield proxy.url
    finally:
        proxy.stop()


def measure_round(contestants: Mapping[str, Contestant], plan: Plan) -> Round:
    """Each in turn."""
    laps: Round = {}
    for name, contestant in contestants.items():
        jobs = plan.stock_jobs if name == "stock" else plan.jobs
        clock = CpuClock(contestant.pid)
        seconds = contestant.run(jobs)
        laps[name] = Lap(jobs / seconds, clock.seconds() / jobs)
    return laps


def summary(rounds: list[Round]) -> dict[str, object]:
    """Medians, and medians of ratios."""

    def speed(name: str) -> float:
        return round(median(each[name].jobs_per_s for each in rounds), 2)

    def ratio(name: str, other: str) -> float:
        ratios = [each[name].jobs_per_s / each[other].jobs_per_s for each in rounds]
        return round(median(ratios), 3)

    def cpu(name: str) -> float:
        return round(median(each[name].cpu_s_per_job for each in rounds), 4)

    return {
        "rounds": len(rounds),
        "sandbox": unprivileged.can_sandbox(),
        "raw_jobs_per_s": speed("raw"),
        "stock_celery_jobs_per_s": speed("stock"),
        "crawlee_jobs_per_s": speed("crawlee"),
        "crawlee_lean_jobs_per_s": speed("crawlee_lean"),
        "raw_cpu_s_per_job": cpu("raw"),
        "modes": {
            mode: {
                "at_once": at_once,
                "jobs_per_s": speed(mode),
                "ratio_to_raw": ratio(mode, "raw"),
                "ratio_to_stock_celery": ratio(mode, "stock"),
                "ratio_to_crawlee": ratio(mode, "crawlee"),
                "cpu_s_per_job": cpu(mode),
            }
            for mode, at_once in AT_ONCE.items()
        },
        "threads_with_egress_proxy": {
            "jobs_per_s": speed("proxied"),
            "ratio_to_raw": ratio("proxied", "raw"),
            "ratio_to_threads": ratio("proxied", "threads"),
            "cpu_s_per_job": cpu("proxied"),
        },
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=40, help="in a round")
    parser.add_argument("--stock-jobs", type=int, default=10, help="of stock in a round")
    unprivileged.add_argument(parser)
    options = parser.parse_args()
    unprivileged.leave_root(options)
    plan = Plan(options.rounds, options.jobs, options.stock_jobs)
    rounds: list[Round] = []
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swarm-bench-")))
        contestants = start_all(directory, stack)
        for name, contestant in contestants.items():
            print(f"{name}: {4 / contestant.run(4):.2f} jobs a second at first", flush=True)
        ordered = list(contestants.items())
        for number in range(1, plan.rounds + 1):
            # Whoever goes first finds the machine in another state: take turns.
            ordered = ordered[1:] + ordered[:1]
            rounds.append(measure_round(dict(ordered), plan))
            told = ", ".join(
                f"{name} {lap.jobs_per_s:.2f} ({lap.cpu_s_per_job:.3f} s)"
                for name, lap in sorted(rounds[-1].items())
            )
            print(f"round {number}: {told}", flush=True)
    print(json.dumps(summary(rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run kombu's and Celery's own tests over our transport, result backend and task class.

Their tests come with their source distributions, pinned in `sources.txt`. Each part runs in a
process of its own against a Redis of its own. What does not apply stands in `not-applicable.txt`
and runs as well: a listed test that passes, a skip that is not listed and a pattern without a
test fail the run, so that the list cannot rot and nothing hides.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from tests.loopback import RedisServer
from tests.upstream.listing import DELIVERIES, Delivery, Entry, find, read_list
from tests.upstream.sources import CACHE, REPOSITORY, fetch, tree

#: Parts that run at a time. They wait more than they compute.
AT_A_TIME = 6
#: Seconds for a test, and for one that is not expected to pass.
TIMEOUT_S, LISTED_TIMEOUT_S = 45.0, 15.0
#: Seconds for a part.
PART_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Suite:
    """Modules of one project that run alike, in so many parts."""

    project: str
    name: str
    modules: tuple[str, ...]
    parts: int
    stand_in: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """What one process runs: every so-many-th test of a suite, or its listed tests."""

    suite: Suite
    number: int
    listed: bool = False

    @property
    def name(self) -> str:
        return f"{self.suite.name}-{'listed' if self.listed else self.number}"


SUITES = (
    Suite(
        "celery",
        "celery-canvas",
        ("t/integration/test_canvas.py", "t/integration/test_group_chains.py"),
        parts=3,
    ),
    Suite(
        "celery",
        "celery-integration",
        (
            "t/integration/test_tasks.py",
            "t/integration/test_inspect.py",
            "t/integration/test_redis_backend.py",
            "t/integration/test_connection_recovery.py",
            "t/integration/test_serialization.py",
            "t/integration/test_request_backend_down.py",
        ),
        parts=2,
    ),
    Suite(
        "kombu",
        "kombu-integration",
        ("t/integration/test_redis.py", "t/integration/test_redis_brpop_qos.py"),
        parts=2,
    ),
    Suite(
        "kombu",
        "kombu-unit",
        ("t/unit/transport/test_redis.py", "t/unit/transport/virtual"),
        parts=1,
        stand_in=True,
    ),
    Suite(
        "celery",
        "celery-unit",
        (
            "t/unit/backends/test_redis.py",
            "t/unit/tasks/test_tasks.py",
            "t/unit/tasks/test_trace.py",
            "t/unit/tasks/test_chord.py",
        ),
        parts=1,
        stand_in=True,
    ),
)


def run_part(part: Part, delivery: Delivery, timeout_s: float) -> dict[str, list[str]]:
    """Outcome and message of each test, by `<project>/<test id>`."""
    log = CACHE / f"{delivery}-{part.name}.log"
    outcomes = log.with_suffix(".json")
    outcomes.unlink(missing_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="upstream-") as directory,
        RedisServer(Path(directory)) as server,
    ):
        with server.connect() as redis:
            # The tests' own clients give none.
            redis.config_set("requirepass", "")
        try:
            with log.open("wb") as output:
                subprocess.run(
                    _command(part, delivery, timeout_s, outcomes),
                    cwd=tree(part.suite.project),
                    env=_environ(server.port, Path(directory)),
                    stdout=output,
                    stderr=output,
                    timeout=PART_TIMEOUT_S,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            return {f"{part.name}": ["failed", f"not over within {PART_TIMEOUT_S:g} s: {log}"]}
    if not outcomes.exists():
        return {f"{part.name}": ["failed", f"ended without a word, see {log}"]}
    found: dict[str, list[str]] = json.loads(outcomes.read_text(encoding="utf-8"))
    return found


def _command(part: Part, delivery: Delivery, timeout_s: float, outcomes: Path) -> list[str]:
    words = [
        *(sys.executable, "-m", "pytest", "-c", str(Path(__file__).with_name("pytest.ini"))),
        *("--rootdir", str(tree(part.suite.project)), "--continue-on-collection-errors"),
        *("--durations", "20", "--verbose", "--no-header", "--tb", "short", "-ra"),
        f"--upstream-suite={part.suite.project}",
        f"--upstream-delivery={delivery}",
        f"--upstream-timeout-s={LISTED_TIMEOUT_S if part.listed else timeout_s}",
        f"--upstream-outcomes={outcomes}",
    ]
    if part.suite.stand_in:
        words.append("--upstream-stand-in")
    words += (
        ["--upstream-listed"]
        if part.listed
        else [f"--upstream-part={part.number}/{part.suite.parts}"]
    )
    return [*words, *part.suite.modules]


def _environ(port: int, directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SWARM_")}
    url = f"redis://127.0.0.1:{port}/0"
    return {
        **kept,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(directory),
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(port),
        "REDIS_6379_TCP": str(port),
        "TEST_BROKER": url,
        "TEST_BACKEND": url,
        # As upstream's tox.ini has it; tests read the worker's log.
        "WORKER_LOGLEVEL": "INFO",
    }


def judge(outcomes: dict[str, list[str]], entries: list[Entry]) -> list[str]:
    """What is not as it should be, a line each."""
    wrong = []
    for test, (outcome, message) in sorted(outcomes.items()):
        entry = find(entries, test)
        if entry is None and outcome != "passed":
            wrong.append(f"{outcome}: {test}: {' '.join(message.split())[:300]}")
        elif entry is not None and outcome == "passed" and not entry.may_pass:
            wrong.append(f"passes, but is listed ({entry.reason}): {test}")
    return wrong + [
        f"listed, but there is no such test: {entry.pattern}"
        for entry in entries
        if not any(entry.matches(test) for test in outcomes)
    ]


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """`python -m tests.upstream.run`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delivery", choices=DELIVERIES, default="ours")
    parser.add_argument("--suite", choices=[suite.name for suite in SUITES], action="append")
    parser.add_argument("--timeout-s", type=float, default=TIMEOUT_S, help="for a test")
    arguments = parser.parse_args()
    delivery: Delivery = arguments.delivery
    started = time.monotonic()
    CACHE.mkdir(parents=True, exist_ok=True)
    fetch()

    suites = [suite for suite in SUITES if arguments.suite is None or suite.name in arguments.suite]
    entries = read_list(delivery)
    parts = [Part(suite, 0, listed=True) for suite in suites]
    parts += [Part(suite, number + 1) for suite in suites for number in range(suite.parts)]
    outcomes: dict[str, list[str]] = {}

    def run(part: Part) -> None:
        begun = time.monotonic()
        found = run_part(part, delivery, arguments.timeout_s)
        outcomes.update(found)
        passed = sum(outcome == "passed" for outcome, _ in found.values())
        tell(
            f"{part.name:30} {len(found):4} tests, {passed:4} passed, "
            f"{time.monotonic() - begun:4.0f} s"
        )

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(run, parts))

    if arguments.suite is not None:
        # A pattern may be for another suite.
        entries = [entry for entry in entries if any(map(entry.matches, outcomes))]
    wrong = judge(outcomes, entries)
    for line in wrong:
        tell(line)
    passed = sum(outcome == "passed" for outcome, _ in outcomes.values())
    tell(
        f"kombu {version('kombu')} and celery {version('celery')} over {delivery}: "
        f"{passed} passed, "
        f"{sum(find(entries, test) is not None for test in outcomes)} do not apply, "
        f"{len(wrong)} wrong, in {time.monotonic() - started:.0f} s"
    )
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()

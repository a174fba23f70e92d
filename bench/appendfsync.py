"""What it costs that an accepted task is on disk before its producer hears of it.

`make bench-appendfsync` runs three Redis servers that differ in `appendfsync` alone, side by side
on one disk, and has redis-benchmark push messages of a task's size, from one client and from eight.
Servers take turns in each round, so that a slow moment of the machine hits all of them; ratios are
within a round. Beside it stands what a bare write and fdatasync takes, the least that `always` can
cost. The last line is one JSON object of medians.

The disk is that of --directory: give it the one that Redis will have.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.loopback import PASSWORD, RedisServer

REPOSITORY = Path(__file__).resolve().parents[1]
ROUNDS = 7
#: Of a message for a browser task with a few actions, headers and all.
MESSAGE_BYTES = 1500
POLICIES = ("always", "everysec", "no")
CLIENTS = (1, 8)
#: Pushes of one client in one measurement: under a second on a disk that syncs in a millisecond.
PUSHES = {"always": 1000, "everysec": 20_000, "no": 20_000}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--directory", type=Path, default=REPOSITORY, help="on the disk to measure")
    options = parser.parse_args(argv)
    with ExitStack() as stack:
        directory = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix=".bench-", dir=options.directory)
            )
        )
        servers = [stack.enter_context(redis_server(directory, policy)) for policy in POLICIES]
        rounds = []
        for number in range(options.rounds):
            # Nobody is always the one who comes after the slowest.
            turn = number % len(servers)
            measured = {"fdatasync_ms": measure_fdatasync(directory)}
            for clients in CLIENTS:
                for server in servers[turn:] + servers[:turn]:
                    measured[f"{server.policy}_{clients}_per_s"] = push(server, clients)
            rounds.append(measured)
            print(show(measured), flush=True)
    print(json.dumps({"rounds": len(rounds), "message_bytes": MESSAGE_BYTES, **summary(rounds)}))
    return 0


def summary(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds, and of each round's ratios."""
    medians = {key: round(median(each[key] for each in rounds), 3) for key in rounds[0]}
    for clients in CLIENTS:
        for slow, fast in (("always", "everysec"), ("always", "no"), ("everysec", "no")):
            ratio = median(
                each[f"{fast}_{clients}_per_s"] / each[f"{slow}_{clients}_per_s"] for each in rounds
            )
            medians[f"{slow}_to_{fast}_{clients}"] = round(ratio, 2)
    # One client waits for each push: what a producer feels.
    added_s = median(1 / each["always_1_per_s"] - 1 / each["everysec_1_per_s"] for each in rounds)
    medians["always_adds_ms"] = round(added_s * 1000, 3)
    return medians


def show(measured: dict[str, float]) -> str:
    """One round in words."""
    return "  ".join(f"{key} {value:g}" for key, value in measured.items())


@dataclass(frozen=True)
class Server:
    """A Redis and how it treats its disk."""

    policy: str
    redis: RedisServer


@contextmanager
def redis_server(directory: Path, policy: str) -> Iterator[Server]:
    """An append-only Redis that never rewrites, which would hit one measurement and not another."""
    home = directory / policy
    home.mkdir()
    options = ("--appendonly", "yes", "--appendfsync", policy, "--auto-aof-rewrite-percentage", "0")
    with RedisServer(home, options=options) as server:
        yield Server(policy, server)


def push(server: Server, clients: int) -> float:
    """Messages a second that redis-benchmark got accepted."""
    with server.redis.connect() as connection:
        connection.flushall()
    pushes = PUSHES[server.policy] * clients
    words = f"redis-benchmark -p {server.redis.port} -c {clients} -n {pushes}"
    words += f" -d {MESSAGE_BYTES} -t lpush --csv -a {PASSWORD}"
    done = subprocess.run(words.split(), capture_output=True, text=True, check=True, timeout=300)
    name, per_s, *_ = done.stdout.splitlines()[-1].replace('"', "").split(",")
    if name != "LPUSH":
        raise RuntimeError(f"redis-benchmark said {done.stdout!r}")
    return float(per_s)


def measure_fdatasync(directory: Path, *, times: int = 200) -> float:
    """Milliseconds for appending a message to a file and having it on disk."""
    taken = []
    with (directory / "fdatasync").open("wb", buffering=0) as file:
        for _ in range(times):
            started = time.perf_counter()
            file.write(b"x" * MESSAGE_BYTES)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    return round(median(taken) * 1000, 3)


if __name__ == "__main__":
    sys.exit(main())

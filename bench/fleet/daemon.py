"""The scaler's daemon as its unit runs it, watched from outside while Prometheus scrapes it."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import Any

import psutil
import yaml

from bench import processes
from bench.fleet.flower import AUTH
from bench.fleet.host import PLACES, POOL
from tests.loopback import free_port

#: As deployed (`prometheus_scrape_interval`), for /metrics and for /sd.
_SCRAPE_S = 5.0
_SAMPLE_S = 0.5
#: Seconds for an answer on a machine that is busy with other things too.
_ANSWER_S = 60.0
_BUCKET = re.compile(r'^swarm_scaler_turn_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True)
class Usage:
    """What the daemon took in a while."""

    seconds: float
    cpu_s: float
    waited_s: float
    """How long its loop could have gone on and had no processor: other processes had them."""
    rss_mb: float
    """The most it had."""
    buckets: Mapping[float, float]
    """Turns by their longest time in seconds, cumulative."""

    @property
    def turns(self) -> int:
        return int(self.buckets[inf])

    @property
    def cpu_percent(self) -> float:
        """Of one processor."""
        return 100 * self.cpu_s / self.seconds

    def turn_s(self, share: float) -> float:
        """The time that this share of the turns took at most, within a bucket's width."""
        wanted = share * self.buckets[inf]
        for (low, before), (high, after) in pairwise([(0.0, 0.0), *sorted(self.buckets.items())]):
            if after >= wanted > before:
                # The last bucket has no end.
                return (
                    low
                    if high == inf
                    else low + (high - low) * (wanted - before) / (after - before)
                )
        raise ValueError("no turn has ended")


class Daemon:
    """A process that has told systemd it is ready."""

    def __init__(self, process: psutil.Process, port: int, state: Path) -> None:
        self._process = process
        self._url = f"http://127.0.0.1:{port}"
        self._state = state

    def hosts_up(self) -> int:
        """Hosts that answered in its last turn."""
        document = json.loads((self._state / "status.json").read_bytes())
        return sum(host["answers"] for host in document["hosts"].values())

    def peak_rss_mb(self) -> float:
        """The most that it had since its start, as the kernel counts it."""
        text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"^VmHWM:\s+([0-9]+) kB$", text, re.MULTILINE)
        if found is None:
            raise RuntimeError("/proc does not tell the peak of its memory")
        return int(found[1]) * 1024 / 1e6

    def watch(self, seconds: float) -> Usage:
        """Look on for so long."""
        before, began = self._turns(), time.monotonic()
        cpu_s, waited_s = self._cpu_s(), self._waited_s()
        rss = [self._process.memory_info().rss]
        while time.monotonic() < began + seconds:
            time.sleep(_SAMPLE_S)
            rss.append(self._process.memory_info().rss)
        passed = time.monotonic() - began
        cpu_s, waited_s = self._cpu_s() - cpu_s, self._waited_s() - waited_s
        turns = {upto: count - before[upto] for upto, count in self._turns().items()}
        return Usage(passed, cpu_s, waited_s, max(rss) / 1e6, turns)

    def scrape(self, stop: threading.Event) -> None:
        """Do what Prometheus does with it, which has another try when it gets no answer."""
        while not stop.wait(_SCRAPE_S):
            for path in ("/metrics", "/sd"):
                with suppress(OSError):
                    self._get(path)

    def _cpu_s(self) -> float:
        used = self._process.cpu_times()
        return float(used.user + used.system)

    def _waited_s(self) -> float:
        # Of the main thread, which has the loop: time on a processor, time waiting for one, in ns.
        told = Path(f"/proc/{self._process.pid}/schedstat").read_text(encoding="ascii")
        return int(told.split()[1]) / 1e9

    def _turns(self) -> dict[float, float]:
        return {float(upto): float(count) for upto, count in _BUCKET.findall(self._get("/metrics"))}

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(f"{self._url}{path}", timeout=_ANSWER_S) as answer:
            return str(answer.read().decode())


@contextmanager
def running(
    directory: Path, hosts: Mapping[str, int], known_hosts: str, *, flower: str, redis_url: str
) -> Iterator[Daemon]:
    """`swarm scaler run` for hosts by their ports on loopback.

    Its SSH key is in the file `ssh-key` of the directory `credentials` already.
    """
    port = free_port()
    (directory / "known_hosts").write_text(known_hosts, encoding="utf-8")
    (directory / "state").mkdir()
    config = directory / "config.yaml"
    document = _config(directory, hosts, flower=flower, metrics_port=port)
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    credentials = directory / "credentials"
    (credentials / "flower-auth").write_text(AUTH, encoding="utf-8")
    (credentials / "redis-url").write_text(redis_url, encoding="utf-8")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("REDIS_")},
        "PYTHONPATH": str(processes.REPOSITORY),
        "SWARM_CONFIG": str(config),
        "SWARM_HOST": "control",
        "SWARM_METRICS_ADDRESS": "127.0.0.1",
        "CREDENTIALS_DIRECTORY": str(credentials),
    }
    words = [str(Path(sys.executable).with_name("swarm")), "scaler", "run"]
    with processes.told_ready(words, environ, directory / "scaler") as process:
        daemon = Daemon(psutil.Process(process.pid), port, directory / "state")
        stop = threading.Event()
        prometheus = threading.Thread(target=daemon.scrape, args=(stop,), name="prometheus")
        prometheus.start()
        try:
            yield daemon
        finally:
            stop.set()
            prometheus.join()


def _config(
    directory: Path, hosts: Mapping[str, int], *, flower: str, metrics_port: int
) -> dict[str, Any]:
    """All that is not said is the default."""
    return {
        "pools": {
            POOL: {
                "task_type": "browser",
                "queues": [POOL],
                "max_instances": PLACES * len(hosts),
                "metrics_port_base": 9100,
            }
        },
        "hosts": {
            name: {"address": "127.0.0.1", "port": port, "max_instances": PLACES}
            for name, port in hosts.items()
        },
        "scaler": {
            "metrics_port": metrics_port,
            "known_hosts": str(directory / "known_hosts"),
            "state_directory": str(directory / "state"),
            "data_directory": str(directory / "state"),
        },
        "flower": {"url": flower},
    }

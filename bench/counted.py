"""A Redis with the counting proxy before it, and what the counts say."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from redis import Redis

from bench import processes
from bench.proxy import CountingProxy, Counts
from tests.loopback import PASSWORD

#: They count in INFO when they end, which is up to minutes after they were sent.
_BLOCKING = frozenset({"BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BZPOPMIN", "BLMPOP"})
#: Our own look at the figures.
_LOOK = "INFO"


@dataclass(frozen=True)
class CountedRedis:
    """A Redis, and the proxy before it."""

    direct: Redis
    proxy: CountingProxy

    def url(self, party: str) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.proxy.ports[party]}/0"

    def executed(self) -> Counter[str]:
        """Commands that Redis has run, those inside scripts too."""
        rows = cast("Mapping[str, Mapping[str, Any]]", self.direct.info("commandstats"))
        names = (name.removeprefix("cmdstat_").replace("|", " ").upper() for name in rows)
        calls = (int(row["calls"]) for row in rows.values())
        return Counter(dict(zip(names, calls, strict=True)))


@contextmanager
def counted_redis(directory: Path, *parties: str) -> Iterator[CountedRedis]:
    """Started, with a port for each party."""
    with (
        processes.redis_server(directory) as server,
        server.connect() as direct,
        CountingProxy(server.port, parties) as proxy,
    ):
        yield CountedRedis(direct, proxy)


def total(counts: Counts) -> int:
    """All parties' requests."""
    return sum(counter.total() for counter in counts.values())


def inside_scripts(executed: Counter[str], counts: Counts) -> int:
    """Commands that Redis ran and nobody sent."""
    sent = sum(counts.values(), start=Counter[str]())
    names = set(executed) - _BLOCKING - {_LOOK}
    return sum(executed[name] - sent[name] for name in names)


def show(title: str, counts: Counts) -> None:
    """Who asked what how often."""
    print(f"{title}: {total(counts)}")
    for party, counter in sorted(counts.items()):
        commands = ", ".join(f"{name} {count}" for name, count in counter.most_common())
        print(f"  {party}: {commands or 'nothing'}")
    sys.stdout.flush()

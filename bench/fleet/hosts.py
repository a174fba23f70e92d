"""Simulated hosts in processes of their own, a few hundred in each."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any
from unittest.mock import patch

import asyncssh

from bench.fleet.host import Host
from bench.fleet.ssh import HostServer
from swarm import unit_watch

#: Share of the hosts that change, and that can be made unreachable: one in so many.
TENTH = 10
_HOSTS_A_PROCESS = 250
#: Megabytes that each host says are available; this machine's would stand for all of them.
_MEMORY_MB = 32_000
#: Seconds for an answer of a process of hosts.
_ANSWER_S = 60.0


@dataclass(frozen=True)
class Count:
    """What hosts have seen so far."""

    started_at: tuple[float, ...]
    taken: int
    """Tasks, by instances that were started."""
    stopped: int
    wrong: tuple[str, ...]
    """Commands that must not come."""
    running: int
    idle: int


class Fleet:
    """All hosts, as this process sees them."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections
        self.hosts: dict[str, int] = {}
        """Ports by name."""
        self.known_hosts: list[str] = []

    def listen(self) -> None:
        for hosts, known_hosts in self._ask("listen"):
            self.hosts |= hosts
            self.known_hosts += known_hosts

    def work(self, interval_s: float) -> None:
        """From now on a tenth of the hosts changes in each interval.

        One instance on each of them ends its task, and takes another one an interval later.
        """
        self._ask("work", interval_s)

    def rest(self) -> None:
        """Nothing changes any more, and all instances are busy."""
        self._ask("rest")

    def lose_a_tenth(self) -> None:
        """Half of it refuses connections, the other half takes them and says nothing."""
        self._ask("lose")

    def find(self) -> None:
        """All are there again."""
        self._ask("find")

    def count(self) -> Count:
        counts: list[Count] = self._ask("count")
        return Count(
            tuple(sorted(at for each in counts for at in each.started_at)),
            sum(each.taken for each in counts),
            sum(each.stopped for each in counts),
            tuple(words for each in counts for words in each.wrong),
            sum(each.running for each in counts),
            sum(each.idle for each in counts),
        )

    def carried(self) -> int:
        """Bytes so far, both ways over SSH."""
        return sum(self._ask("carried"))

    def _ask(self, *words: Any) -> list[Any]:
        for connection in self._connections:
            connection.send(words)
        return [_received(connection) for connection in self._connections]


def _received(connection: Connection) -> Any:
    if not connection.poll(_ANSWER_S):
        raise TimeoutError(f"simulated hosts did not answer in {_ANSWER_S:g} s")
    try:
        answer = connection.recv()
    except EOFError as exc:
        raise RuntimeError("a process of simulated hosts ended") from exc
    if isinstance(answer, Exception):
        raise answer
    return answer


@contextmanager
def simulated(count: int, authorized: str) -> Iterator[Fleet]:
    """So many hosts, which let whoever has the key in; they do not listen yet."""
    context = multiprocessing.get_context("spawn")
    connections, processes = [], []
    try:
        for first in range(0, count, _HOSTS_A_PROCESS):
            ours, theirs = context.Pipe()
            numbers = range(first, min(count, first + _HOSTS_A_PROCESS))
            process = context.Process(target=_main, args=(theirs, numbers, count, authorized))
            process.start()
            theirs.close()
            connections.append(ours)
            processes.append(process)
        yield Fleet(connections)
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            process.join(10)
            if process.is_alive():
                process.kill()
                process.join()


def _main(connection: Connection, numbers: range, count: int, authorized: str) -> None:
    # What the lines say of this machine they would say for every host alike.
    with patch.multiple(unit_watch, memory_available_mb=lambda: _MEMORY_MB, pressures=dict):
        asyncio.run(_serve(connection, numbers, count, authorized))


async def _serve(connection: Connection, numbers: range, count: int, authorized: str) -> None:
    keys = asyncssh.import_authorized_keys(authorized)
    later = asyncio.get_running_loop().call_later
    servers = {number: HostServer(Host(f"h{number:04}", later), keys) for number in numbers}
    await _Hosts(servers, count).serve(connection)


class _Hosts:
    """Those of this process."""

    def __init__(self, servers: Mapping[int, HostServer], count: int) -> None:
        """`count` is how many there are in all processes."""
        self._servers = servers
        self._count = count
        self._working: list[asyncio.Task[None]] = []

    async def serve(self, connection: Connection) -> None:
        """Do what the other end asks, until it is gone."""
        verbs: dict[str, Callable[..., Awaitable[Any]]] = {
            "listen": self._listen,
            "work": self._work,
            "rest": self._rest,
            "lose": self._lose,
            "find": self._find,
            "count": self._counted,
            "carried": self._carried,
        }
        while True:
            try:
                verb, *words = await asyncio.to_thread(connection.recv)
            except EOFError:
                break
            try:
                answer = await verbs[verb](*words)
            except OSError as exc:
                answer = exc
            connection.send(answer)
        for server in self._servers.values():
            await server.leave()

    async def _listen(self) -> tuple[dict[str, int], list[str]]:
        for server in self._servers.values():
            await server.listen()
        servers = self._servers.values()
        return (
            {server.host.name: server.port for server in servers},
            [server.known_hosts_line for server in servers],
        )

    async def _work(self, interval_s: float) -> None:
        self._working = [
            asyncio.create_task(self._work_on(number, server.host, interval_s))
            for number, server in self._servers.items()
        ]

    async def _work_on(self, number: int, host: Host, interval_s: float) -> None:
        """Two of twenty intervals: another tenth of the hosts every other one, spread over it."""
        within = (number // TENTH) / max(1.0, self._count / TENTH)
        await asyncio.sleep(interval_s * (2 * (number % TENTH) + within))
        while True:
            host.end_task()
            try:
                await asyncio.sleep(interval_s)
            finally:
                host.take_task()
            await asyncio.sleep(interval_s * (2 * TENTH - 1))

    async def _rest(self) -> None:
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        self._working = []

    async def _lose(self) -> None:
        for number, server in self._servers.items():
            if number % TENTH == 0:
                await (server.leave if number // TENTH % 2 else server.fall_silent)()

    async def _find(self) -> None:
        for number, server in self._servers.items():
            if number % TENTH == 0:
                await server.listen()

    async def _counted(self) -> Count:
        hosts = [server.host for server in self._servers.values()]
        return Count(
            tuple(at for host in hosts for at in host.started_at),
            sum(host.taken for host in hosts),
            sum(host.stopped for host in hosts),
            tuple(words for host in hosts for words in host.wrong),
            sum(host.running for host in hosts),
            sum(host.idle for host in hosts),
        )

    async def _carried(self) -> int:
        return sum(server.count_bytes() for server in self._servers.values())

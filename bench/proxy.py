"""Counts what clients ask of a Redis: a proxy that reads along.

Each party connects to a port of its own, so that a request is known by who sent it. Only
requests are counted: answers and what subscriptions push go back unread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial

from bench.relay import CHUNK, Line, Pump, Relay

#: A name is read to its end, other words are passed over: they may be whole pages.
_LONGEST_NAME = 64
_LONGEST_LINE = 1 << 16
#: Commands of which the second word says what they do.
_CONTAINERS = frozenset({"ACL", "CLIENT", "CONFIG", "OBJECT", "PUBSUB", "SCRIPT", "XGROUP"})


class RequestParser:
    """Finds the requests in one connection's bytes, however these are cut into chunks.

    https://redis.io/docs/latest/develop/reference/protocol-spec/: an array of bulk strings, or
    words on one line.
    """

    def __init__(self, on_request: Callable[[str], None]) -> None:
        """`on_request` gets the command's name, such as `BLPOP` or `CLIENT SETINFO`."""
        self._on_request = on_request
        self._buffer = bytearray()
        self._passed_over = 0
        self._steps = self._read()
        next(self._steps)

    def feed(self, chunk: bytes) -> None:
        """Read on.

        Raises:
            ValueError: these are no requests.
        """
        skipped = min(len(chunk), self._passed_over)
        self._passed_over -= skipped
        if not self._passed_over:
            self._buffer += chunk[skipped:]
            self._steps.send(None)

    def _read(self) -> Generator[None, None, None]:
        while True:
            line = yield from self._line()
            if line.startswith(b"*"):
                yield from self._array(int(line[1:]))
            elif line:
                words = line.split()
                self._tell([word.decode("latin-1") for word in words[:2]])

    def _array(self, length: int) -> Generator[None, None, None]:
        names: list[str] = []
        for _ in range(length):
            header = yield from self._line()
            if not header.startswith(b"$"):
                raise ValueError(f"expected a bulk string, got {bytes(header[:20])!r}")
            size = int(header[1:])
            if len(names) < 2 and size <= _LONGEST_NAME:
                word = yield from self._take(size + 2)
                names.append(word[:-2].decode("latin-1"))
            else:
                names.append("")
                yield from self._skip(size + 2)
        if length > 0:
            self._tell(names[:2])

    def _tell(self, words: Sequence[str]) -> None:
        name = words[0].upper()
        if name in _CONTAINERS and len(words) > 1:
            name = f"{name} {words[1].upper()}"
        self._on_request(name)

    def _line(self) -> Generator[None, None, bytes]:
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _LONGEST_LINE:
                raise ValueError("a line without an end")
            yield
        line = yield from self._take(end + 1)
        return line.rstrip(b"\r\n")

    def _take(self, size: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < size:
            yield
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _skip(self, size: int) -> Generator[None, None, None]:
        here = min(size, len(self._buffer))
        del self._buffer[:here]
        self._passed_over = size - here
        if self._passed_over:
            # feed() comes back when all of it has passed.
            yield


Counts = dict[str, Counter[str]]


class CountingProxy(Relay):
    """In front of the Redis on loopback's `target_port`; a context manager around its thread."""

    def __init__(self, target_port: int, parties: Sequence[str]) -> None:
        super().__init__(("127.0.0.1", target_port), name="proxy")
        self._lock = threading.Lock()
        self._counts: Counts = {party: Counter() for party in parties}
        self._ports: dict[str, int] = {}

    @property
    def ports(self) -> Mapping[str, int]:
        """Where each party connects."""
        return self._ports

    def counts(self) -> Counts:
        """Requests so far, by party and command."""
        with self._lock:
            return {party: counter.copy() for party, counter in self._counts.items()}

    async def _open(self) -> None:
        for party in self._counts:
            self._ports[party] = await self._listen("127.0.0.1", partial(self._pumps, party))

    def _pumps(self, party: str, line: Line) -> tuple[Pump, Pump]:
        def count(name: str) -> None:
            with self._lock:
                self._counts[party][name] += 1

        parser = RequestParser(count)
        return (
            _pump(line.from_client, line.to_server, parser.feed),
            _pump(line.from_server, line.to_client, None),
        )


async def _pump(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    look: Callable[[bytes], None] | None,
) -> None:
    while chunk := await source.read(CHUNK):
        if look is not None:
            look(chunk)
        sink.write(chunk)
        await sink.drain()


def difference(after: Counts, before: Counts) -> Counts:
    """Requests between two looks."""
    return {party: after[party] - before[party] for party in after}

"""Counts what clients ask of a Redis: a proxy that reads along.

Each party connects to a port of its own, so that a request is known by who sent it. Only
requests are counted: answers and what subscriptions push go back unread.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from types import TracebackType
from typing import Self

_CHUNK = 1 << 16
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


class CountingProxy:
    """In front of the Redis on loopback's `target_port`; a context manager around its thread."""

    def __init__(self, target_port: int, parties: Sequence[str]) -> None:
        self._target_port = target_port
        self._lock = threading.Lock()
        self._counts: Counts = {party: Counter() for party in parties}
        self._ports: dict[str, int] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")
        self._servers: list[asyncio.Server] = []
        self._connections: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

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
            server = await asyncio.start_server(self._accept(party), "127.0.0.1", 0)
            self._ports[party] = server.sockets[0].getsockname()[1]
            self._servers.append(server)

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, party: str) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
        def count(name: str) -> None:
            with self._lock:
                self._counts[party][name] += 1

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._serve(reader, writer, count))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

        return accept

    async def _serve(
        self,
        from_client: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
        count: Callable[[str], None],
    ) -> None:
        try:
            from_redis, to_redis = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            to_client.close()
            return
        parser = RequestParser(count)
        pumps = {
            self._loop.create_task(_pump(from_client, to_redis, parser.feed)),
            self._loop.create_task(_pump(from_redis, to_client, None)),
        }
        try:
            # Whichever side hangs up first, the other learns of it.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            to_client.close()
            to_redis.close()


async def _pump(
    source: asyncio.StreamReader,
    sink: asyncio.StreamWriter,
    look: Callable[[bytes], None] | None,
) -> None:
    while chunk := await source.read(_CHUNK):
        if look is not None:
            look(chunk)
        sink.write(chunk)
        await sink.drain()


def difference(after: Counts, before: Counts) -> Counts:
    """Requests between two looks."""
    return {party: after[party] - before[party] for party in after}

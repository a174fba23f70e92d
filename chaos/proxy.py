"""A proxy between one host's workers and Redis, which can strike between two steps of delivery.

A trap is set for the next take that brings a message or for the next commit, and springs once: what
it caught is withheld while `spring` kills the worker, so that the kill falls exactly between the
broker's reply and the worker's next command, or between the end of a body and its commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha1
from types import TracebackType
from typing import Literal, Self

_CHUNK = 1 << 16
#: A take without messages answers three numbers.
_NOTHING_TAKEN = b"*3\r\n"

Where = Literal["after a take", "before a commit", "after a commit"]


class IncompleteError(Exception):
    """More bytes are needed."""


def split_requests(buffer: bytearray) -> Iterator[tuple[bytes, list[bytes]]]:
    """Cut whole requests off the buffer's begin: their bytes and their words."""
    while buffer:
        try:
            words, end = _parse(buffer)
        except IncompleteError:
            return
        raw = bytes(buffer[:end])
        del buffer[:end]
        yield raw, words


def _parse(buffer: bytearray) -> tuple[list[bytes], int]:
    count, at = _number(buffer, 0)
    words = []
    for _ in range(count):
        size, at = _number(buffer, at)
        if len(buffer) < at + size + 2:
            raise IncompleteError
        words.append(bytes(buffer[at : at + size]))
        at += size + 2
    return words, at


def _number(buffer: bytearray, at: int) -> tuple[int, int]:
    end = buffer.find(b"\r\n", at)
    if end < 0:
        raise IncompleteError
    return int(buffer[at + 1 : end]), end + 2


def holder_in(words: list[bytes], sha: str) -> str | None:
    """The holder, when the request runs this script by its hash or by its text."""
    if len(words) < 4:
        return None
    verb, named = words[0].upper(), words[1]
    if verb == b"EVAL":
        named = sha1(named, usedforsecurity=False).hexdigest().encode()
    elif verb != b"EVALSHA":
        return None
    return words[3].decode() if named == sha.encode() else None


@dataclass(frozen=True, slots=True)
class Shas:
    """By which Redis knows the scripts of the release that is deployed."""

    take: str
    commit: str


@dataclass(slots=True, eq=False)
class Trap:
    """What to wait for, and what to do then."""

    where: Where
    spring: Callable[[str], bool]
    """Called with the holder while its request or reply is withheld; False lets it pass."""
    sprung: threading.Event


class TrapProxy:
    """In front of a Redis; a context manager around its thread."""

    def __init__(self, address: str, target: tuple[str, int], shas: Shas) -> None:
        self._address, self._target, self._shas = address, target, shas
        self.port = 0
        self._traps: list[Trap] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="trap proxy")
        self._server: asyncio.Server | None = None
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

    def set(self, where: Where, spring: Callable[[str], bool]) -> Trap:
        """Set a trap; `unset` it when it has not sprung."""
        trap = Trap(where, spring, threading.Event())
        self._traps.append(trap)
        return trap

    def unset(self, trap: Trap) -> None:
        if trap in self._traps:
            self._traps.remove(trap)

    def catch(self, where: Where, spring: Callable[[str], bool], *, timeout_s: float) -> bool:
        """Set a trap and wait; whether it has sprung."""
        trap = self.set(where, spring)
        try:
            return trap.sprung.wait(timeout_s)
        finally:
            self.unset(trap)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._accept, self._address, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(
        self, from_worker: asyncio.StreamReader, to_worker: asyncio.StreamWriter
    ) -> None:
        try:
            from_redis, to_redis = await asyncio.open_connection(*self._target)
        except OSError:
            to_worker.close()
            return
        line = _Line(from_worker, to_worker, from_redis, to_redis)
        pumps = {
            self._loop.create_task(self._pump_requests(line)),
            self._loop.create_task(self._pump_replies(line)),
        }
        try:
            # Whichever side hangs up first, the other learns of it.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in (to_worker, to_redis):
                with contextlib.suppress(OSError):
                    writer.close()

    async def _pump_requests(self, line: _Line) -> None:
        buffer = bytearray()
        while chunk := await line.from_worker.read(_CHUNK):
            buffer += chunk
            for raw, words in split_requests(buffer):
                commits = holder_in(words, self._shas.commit)
                if commits and await self._springs("before a commit", commits):
                    return
                line.takes, line.commits = holder_in(words, self._shas.take), commits
                line.to_redis.write(raw)
            await line.to_redis.drain()

    async def _pump_replies(self, line: _Line) -> None:
        while chunk := await line.from_redis.read(_CHUNK):
            brings = chunk.startswith(b"*") and not chunk.startswith(_NOTHING_TAKEN)
            if line.takes and brings and await self._springs("after a take", line.takes):
                return
            # An error, such as that the script is not known yet, is no commit.
            ends = chunk.startswith(b"$")
            if line.commits and ends and await self._springs("after a commit", line.commits):
                return
            line.to_worker.write(chunk)
            await line.to_worker.drain()

    async def _springs(self, where: Where, holder: str) -> bool:
        trap = next((each for each in self._traps if each.where == where), None)
        if trap is None:
            return False
        self._traps.remove(trap)
        if not await self._loop.run_in_executor(None, trap.spring, holder):
            self._traps.append(trap)
            return False
        trap.sprung.set()
        return True


@dataclass(slots=True)
class _Line:
    """One worker's connection, and what its last request was."""

    from_worker: asyncio.StreamReader
    to_worker: asyncio.StreamWriter
    from_redis: asyncio.StreamReader
    to_redis: asyncio.StreamWriter
    takes: str | None = None
    commits: str | None = None

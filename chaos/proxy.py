"""A proxy between one host's workers and Redis, which can strike between two steps of delivery.

A trap is set for the next take that brings a message or for the next commit, and springs once: what
it caught is withheld while `spring` kills the worker, so that the kill falls exactly between the
broker's reply and the worker's next command, or between the end of a body and its commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha1
from typing import Literal

from bench.relay import CHUNK, Line, Pump, Relay

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


class TrapProxy(Relay):
    """In front of a Redis; a context manager around its thread."""

    def __init__(self, address: str, target: tuple[str, int], shas: Shas) -> None:
        super().__init__(target, name="trap proxy")
        self._address, self._shas = address, shas
        self.port = 0
        self._traps: list[Trap] = []

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
        self.port = await self._listen(self._address, self._pumps)

    def _pumps(self, line: Line) -> tuple[Pump, Pump]:
        last = _LastRequest()
        return self._pump_requests(line, last), self._pump_replies(line, last)

    async def _pump_requests(self, line: Line, last: _LastRequest) -> None:
        buffer = bytearray()
        while chunk := await line.from_client.read(CHUNK):
            buffer += chunk
            for raw, words in split_requests(buffer):
                commits = holder_in(words, self._shas.commit)
                if commits and await self._springs("before a commit", commits):
                    return
                last.takes, last.commits = holder_in(words, self._shas.take), commits
                line.to_server.write(raw)
            await line.to_server.drain()

    async def _pump_replies(self, line: Line, last: _LastRequest) -> None:
        while chunk := await line.from_server.read(CHUNK):
            brings = chunk.startswith(b"*") and not chunk.startswith(_NOTHING_TAKEN)
            if last.takes and brings and await self._springs("after a take", last.takes):
                return
            # An error, such as that the script is not known yet, is no commit.
            ends = chunk.startswith(b"$")
            if last.commits and ends and await self._springs("after a commit", last.commits):
                return
            line.to_client.write(chunk)
            await line.to_client.drain()

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
class _LastRequest:
    """Which holder it takes or commits for, if it does."""

    takes: str | None = None
    commits: str | None = None

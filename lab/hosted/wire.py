"""Whole requests and whole replies of Redis' protocol, cut from a stream.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

#: By the first byte of a reply: how many replies it holds for each one that it counts.
_HOLDS = {b"*": 1, b"~": 1, b">": 1, b"%": 2, b"|": 2}
_BULKS = frozenset({b"$", b"!", b"="})


@dataclass(frozen=True, slots=True)
class Request:
    """One command as it came."""

    raw: bytes
    words: tuple[bytes, ...]

    @property
    def name(self) -> str:
        """Such as `BLPOP`."""
        return self.words[0].decode("latin-1").upper()

    @property
    def subcommand(self) -> str:
        """The second word, for commands that have such: `SETINFO` of `CLIENT SETINFO`."""
        return self.words[1].decode("latin-1").upper() if len(self.words) > 1 else ""


def encode(words: Sequence[bytes]) -> Request:
    """The request with these words."""
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return Request(b"*%d\r\n%s" % (len(words), b"".join(parts)), tuple(words))


def error(text: str) -> bytes:
    """An error reply; its first word is the code."""
    return f"-{text}\r\n".encode()


async def read_request(reader: asyncio.StreamReader) -> Request:
    """The next one, empty lines passed over.

    Raises:
        asyncio.IncompleteReadError: the client has hung up.
        ValueError: this is no request, or one of its lines is too long.
    """
    while True:
        line = await _line(reader)
        if not line.startswith(b"*"):
            words = tuple(line.split())
            raw = line
        else:
            raw, words = await _array(reader, line)
        if words:
            return Request(raw, words)


async def _array(reader: asyncio.StreamReader, header: bytes) -> tuple[bytes, tuple[bytes, ...]]:
    raw, words = [header], []
    for _ in range(int(header[1:])):
        size = await _line(reader)
        if not size.startswith(b"$"):
            raise ValueError(f"expected a bulk string, got {size[:20]!r}")
        body = await reader.readexactly(int(size[1:]) + 2)
        raw += [size, body]
        words.append(body[:-2])
    return b"".join(raw), tuple(words)


async def read_reply(reader: asyncio.StreamReader) -> bytes:
    """The next one, whole, with what it holds.

    Raises:
        asyncio.IncompleteReadError: the server has hung up.
    """
    line = await _line(reader)
    kind, count = line[:1], line[1:].strip()
    if kind in _BULKS:
        return line if count == b"-1" else line + await reader.readexactly(int(count) + 2)
    if kind not in _HOLDS:
        return line
    held = max(0, int(count)) * _HOLDS[kind]
    parts = [line, *[await read_reply(reader) for _ in range(held)]]
    if kind in {b"|", b">"}:
        # Said beside the reply, which comes after it.
        parts.append(await read_reply(reader))
    return b"".join(parts)


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError as exc:
        raise ValueError("a line without an end") from exc

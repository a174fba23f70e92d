"""One client's connection: each request is met by the rules, each reply by the faults."""

from __future__ import annotations

import asyncio
import contextlib

from bench.relay import CHUNK, Line, Pump
from lab.hosted.rules import Rules
from lab.hosted.wire import Request, encode, error, read_reply, read_request

#: After these Redis speaks unasked: what it says is passed on as it comes.
_LISTENING = frozenset({"MONITOR", "PSUBSCRIBE", "SUBSCRIBE"})
_DISCARD = encode([b"DISCARD"])
#: Seconds between two looks whether a connection is idle.
_LOOK_S = 0.1


class Conversation:
    """Answers one request after another: a pipeline's are not sent on together."""

    def __init__(self, line: Line, rules: Rules) -> None:
        self._line, self._rules = line, rules
        self._requests: asyncio.Queue[Request] = asyncio.Queue()
        self._listening = asyncio.Event()
        self._in_transaction = self._spoiled = False
        self._touched = asyncio.get_running_loop().time()

    def pumps(self) -> tuple[Pump, ...]:
        """Whatever ends first ends the connection."""
        return self._take(), self._answer(), self._pass_on(), self._grow_idle()

    async def _take(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError, ValueError):
            while True:
                request = await read_request(self._line.from_client)
                self._touch()
                self._requests.put_nowait(request)
        # What a client asked before it hung up is done all the same, as Redis does it.
        while not self._requests.empty() and self._rules.faults.reach == "open":
            asked, answer = self._rules.meet(self._requests.get_nowait())
            if answer is None:
                self._line.to_server.write(asked.raw)

    async def _answer(self) -> None:
        while True:
            request = await self._requests.get()
            await self._unless_silent()
            asked, answer = self._rules.meet(request)
            answer = await self._in_its_transaction(request.name, answer)
            if answer is None:
                if request.name in _LISTENING:
                    self._listening.set()
                self._line.to_server.write(asked.raw)
                await self._line.to_server.drain()
                if self._listening.is_set():
                    continue
                answer = await read_reply(self._line.from_server)
            await self._give(answer)

    async def _in_its_transaction(self, name: str, answer: bytes | None) -> bytes | None:
        """Redis does not know what was refused: it is told to drop the transaction."""
        if name == "MULTI":
            self._in_transaction, self._spoiled = answer is None, False
        elif self._in_transaction and name in {"EXEC", "DISCARD"}:
            self._in_transaction = False
            if name == "EXEC" and self._spoiled and answer is None:
                answer = error("EXECABORT Transaction discarded because of previous errors.")
            if answer is not None:
                self._line.to_server.write(_DISCARD.raw)
                await read_reply(self._line.from_server)
        elif self._in_transaction and answer is not None:
            self._spoiled = True
        return answer

    async def _pass_on(self) -> None:
        await self._listening.wait()
        while chunk := await self._line.from_server.read(CHUNK):
            await self._give(chunk)

    async def _give(self, reply: bytes) -> None:
        faults = self._rules.faults
        if faults.slow_s:
            await asyncio.sleep(faults.slow_s)
        await self._unless_silent()
        self._touch()
        if faults.cuts > 0:
            faults.cuts -= 1
            self._line.to_client.write(reply[: len(reply) // 2])
            await self._line.to_client.drain()
            raise ConnectionResetError
        self._line.to_client.write(reply)
        await self._line.to_client.drain()

    async def _unless_silent(self) -> None:
        if self._rules.faults.reach != "open":
            # Whoever makes the service answer again cuts this connection.
            await asyncio.Event().wait()

    def _touch(self) -> None:
        self._touched = asyncio.get_running_loop().time()

    async def _grow_idle(self) -> None:
        now = asyncio.get_running_loop().time
        # How long it may be idle can change meanwhile.
        while now() < self._touched + self._rules.faults.idle_s:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_S)

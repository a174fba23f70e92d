"""Passes TCP connections on to a server, and lets its owner look at what passes, or hold it up."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

#: Bytes that are read at once.
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Line:
    """A client's connection, and the one to the server that was opened for it."""

    from_client: asyncio.StreamReader
    to_client: asyncio.StreamWriter
    from_server: asyncio.StreamReader
    to_server: asyncio.StreamWriter


Pump = Coroutine[Any, Any, None]
#: Those that carry a line's bytes; the line ends with the first of them that does.
Pumps = Callable[[Line], tuple[Pump, ...]]


class Relay(ABC):
    """In front of the server at `target`; a context manager around its thread."""

    def __init__(self, target: tuple[str, int], *, name: str) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name)
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

    @abstractmethod
    async def _open(self) -> None:
        """Listen where clients are to come."""

    async def _listen(self, address: str, pumps: Pumps) -> int:
        """The port, a free one."""
        server = await asyncio.start_server(partial(self._accept, pumps), address, 0)
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(
        self, pumps: Pumps, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        task = self._loop.create_task(self._serve(pumps, reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(
        self, pumps: Pumps, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter
    ) -> None:
        try:
            from_server, to_server = await asyncio.open_connection(*self._target)
        except OSError:
            to_client.close()
            return
        line = Line(from_client, to_client, from_server, to_server)
        running = {self._loop.create_task(pump) for pump in pumps(line)}
        try:
            # Whichever side hangs up first, the other learns of it.
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                for pump in running:
                    pump.cancel()
                await asyncio.gather(*running, return_exceptions=True)
            finally:
                # Also when the relay is closed just then.
                for writer in (to_client, to_server):
                    with contextlib.suppress(OSError):
                        writer.close()

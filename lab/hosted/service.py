"""The service itself: where it listens, and its switches."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections import Counter
from collections.abc import Coroutine
from dataclasses import asdict, fields
from typing import Any, TypeVar

from bench.relay import Line, Pump, Relay
from lab.hosted.conversation import Conversation
from lab.hosted.handshake import greet
from lab.hosted.rules import Faults, Reach, Rules

#: Seconds for the last bytes to a client, and for its end of TLS.
GOODBYE_S = 0.2
_BACKLOG = 128
_T = TypeVar("_T")


class HostedRedis(Relay):
    """In front of the Redis at `target`; a context manager around its thread.

    Passwords and users are those of the Redis behind it. Every method may be called from any
    thread and has taken effect when it returns.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """`port` 0 takes a free one, and keeps it."""
        super().__init__(target, name="hosted redis")
        self._tls, self._address = tls, address
        self.port = port
        self._rules = Rules()
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._unanswered: list[socket.socket] = []

    def url(self, user: str = "", password: str = "", **parameters: object) -> str:
        """For clients on this machine; parameters such as `ssl_ca_certs`."""
        scheme = "rediss" if self._tls else "redis"
        words = "&".join(f"{name}={value}" for name, value in parameters.items())
        place = f"{self._address}:{self.port}/0"
        return f"{scheme}://{user}:{password}@{place}{'?' if words else ''}{words}"

    def set(self, **faults: object) -> None:
        """Change fields of `Faults`; a change of `reach` cuts all connections.

        Raises:
            ValueError: there is no such field, or it cannot have this value.
        """
        self._do(self._set(check_faults(faults)))

    def reach(self, reach: Reach) -> None:
        """Accept connections, refuse them, or accept them and never answer."""
        self.set(reach=reach)

    def reach_limit(self, *, after: int = 0) -> None:
        """Have the limit reached after so many more requests."""
        self._do(self._reach_limit(after))

    def heal(self) -> None:
        """Nothing is wrong any more."""
        self._do(self._set(asdict(Faults())))

    def restart(self) -> None:
        """All connections are cut and all scripts forgotten; the data and the count stay."""
        self._do(self._restart())

    def use(self, used: int) -> None:
        """Set how many requests were used so far; what was counted by command is forgotten."""
        self._do(self._use(used))

    def state(self) -> dict[str, Any]:
        """The fields of `Faults`, `used`, `counts` and `connections`, fit for JSON."""
        return self._do(self._state())

    @property
    def used(self) -> int:
        """Requests that count towards the limit."""
        return int(self.state()["used"])

    @property
    def counts(self) -> Counter[str]:
        """The same by command."""
        return Counter(self.state()["counts"])

    def _do(self, change: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(change, self._loop).result()

    async def _open(self) -> None:
        self._bind()
        self._listen_again()

    async def _close(self) -> None:
        await self._stop_accepting()
        await self._cut_all()
        await super()._close()
        if self._socket is not None:
            self._socket.close()
        # Transports that were aborted go in the loop's next rounds.
        for _ in range(3):
            await asyncio.sleep(0)

    async def _set(self, faults: dict[str, Any]) -> None:
        before = self._rules.faults.reach
        for name, value in faults.items():
            setattr(self._rules.faults, name, value)
        reach = self._rules.faults.reach
        if reach == before:
            return
        if reach == "refused":
            # Bound, so that nobody else takes the port, but not listening.
            await self._stop_accepting()
            self._bind()
        elif before == "refused":
            self._listen_again()
        if reach != "silent":
            # Those that are open now are what hangs when the service falls silent.
            await self._cut_all()

    async def _reach_limit(self, after: int) -> None:
        self._rules.faults.limit = self._rules.used + after

    async def _restart(self) -> None:
        self._rules.scripts.clear()
        await self._cut_all()

    async def _use(self, used: int) -> None:
        self._rules.used = used
        self._rules.counts.clear()

    async def _state(self) -> dict[str, Any]:
        return {
            **asdict(self._rules.faults),
            "used": self._rules.used,
            "counts": dict(self._rules.counts),
            "connections": len(self._connections),
        }

    def _bind(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((self._address, self.port))
        self._socket.setblocking(False)  # noqa: FBT003 - its only parameter
        self.port = int(self._socket.getsockname()[1])

    def _listen_again(self) -> None:
        assert self._socket is not None  # noqa: S101 - bound before
        self._socket.listen(_BACKLOG)
        self._accepting = self._loop.create_task(self._accept_all(self._socket))

    async def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)
            self._accepting = None

    async def _cut_all(self) -> None:
        for client in self._unanswered:
            client.close()
        self._unanswered.clear()
        connections = tuple(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _accept_all(self, listener: socket.socket) -> None:
        while True:
            client, _ = await self._loop.sock_accept(listener)
            if self._rules.faults.reach == "silent":
                self._unanswered.append(client)
                continue
            task = self._loop.create_task(self._greet(client))
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _greet(self, client: socket.socket) -> None:
        # A client that does not like our certificate hangs up during the handshake.
        with contextlib.suppress(OSError):
            reader, writer, beneath = await greet(client, self._tls)
            try:
                await self._serve(self._pumps, reader, writer)
            finally:
                try:
                    async with asyncio.timeout(GOODBYE_S):
                        await writer.wait_closed()
                finally:
                    beneath.abort()

    def _pumps(self, line: Line) -> tuple[Pump, ...]:
        return Conversation(line, self._rules).pumps()


def check_faults(faults: dict[str, Any]) -> dict[str, Any]:
    """The same, if every name is a field of `Faults` and can have its value.

    Raises:
        ValueError: what is wrong.
    """
    names = [field.name for field in fields(Faults)]
    for name, value in faults.items():
        if name not in names:
            raise ValueError(f"no fault {name}, but {', '.join(names)}")
        if name == "reach":
            good = value in {"open", "refused", "silent"}
        elif name == "limit" and value is None:
            good = True
        else:
            number = int if name in {"limit", "cuts"} else (int, float)
            good = isinstance(value, number) and not isinstance(value, bool) and value >= 0
        if not good:
            raise ValueError(f"{name} cannot be {value!r}")
    return faults

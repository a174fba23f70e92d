"""The SSH server of simulated hosts, whose forced command is `swarm-unitctl`."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import cast

import asyncssh

from bench.fleet.host import Host, NotDoneError
from swarm.unit_bus import Units
from swarm.unit_entry import PROTOCOL_VERSION
from swarm.unit_watch import HEARTBEAT_S, RequestError, Requests, Watcher, Words
from swarm.unitctl import RefusedError, parse_command

ADDRESS = "127.0.0.1"
#: Seconds until the watch tells of a change: the real one looks five times a second, and rests for
#: at least a twentieth.
_TELL_S = 0.1
#: `tcpi_bytes_acked` and `tcpi_bytes_received` in Linux' `struct tcp_info`.
_TCP_INFO_BYTES = struct.Struct("@120xQQ")


class HostServer:
    """One host's sshd, at a port of its own that it keeps."""

    def __init__(self, host: Host, authorized: asyncssh.SSHAuthorizedKeys) -> None:
        self.host = host
        self.port = 0
        self._key = asyncssh.generate_private_key("ssh-ed25519")
        self._authorized = authorized
        self._server: asyncssh.SSHAcceptor | asyncio.Server | None = None
        self._connections: dict[asyncssh.SSHServerConnection, int] = {}
        self._bytes = 0

    @property
    def known_hosts_line(self) -> str:
        kind, key = self._key.export_public_key().decode().split()[:2]
        return f"[{ADDRESS}]:{self.port} {kind} {key}"

    async def listen(self) -> None:
        """Answer, from now on."""
        await self.leave()
        self._server = await asyncssh.listen(
            ADDRESS,
            self.port,
            server_factory=lambda: _Server(self.host, self._connections),
            server_host_keys=[self._key],
            authorized_client_keys=self._authorized,
            encoding=None,
            reuse_address=True,
        )
        self.port = self._server.get_port()

    async def fall_silent(self) -> None:
        """Accept connections and say nothing."""
        await self.leave()
        self._server = await asyncio.start_server(_say_nothing, ADDRESS, self.port)

    async def leave(self) -> None:
        """Refuse connections, and break those off that there are."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in list(self._connections):
            connection.abort()

    def count_bytes(self) -> int:
        """All that its connections carried, both ways, as TCP counts it."""
        for connection, before in self._connections.items():
            carried = _bytes_of(connection)
            self._bytes += carried - before
            self._connections[connection] = carried
        return self._bytes


async def _say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while await reader.read(4096):
            pass
    writer.close()


def _bytes_of(connection: asyncssh.SSHServerConnection) -> int:
    end: socket.socket = connection.get_extra_info("socket")
    told = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES.size)
    sent, received = _TCP_INFO_BYTES.unpack(told)
    return int(sent + received)


class _Server(asyncssh.SSHServer):
    """One connection."""

    def __init__(self, host: Host, connections: dict[asyncssh.SSHServerConnection, int]) -> None:
        self._host = host
        self._connections = connections
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._connections[conn] = 0

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's
        if self._connection is not None:
            self._connections.pop(self._connection, None)

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Session(self._host)


class _Session(asyncssh.SSHServerSession[bytes]):
    """One run of `swarm-unitctl`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._words: list[str] = []
        self._channel: asyncssh.SSHServerChannel[bytes] | None = None
        self._watch: _Watch | None = None

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def exec_requested(self, command: str) -> bool:
        self._words = command.split()
        return True

    def session_started(self) -> None:
        try:
            command = parse_command(self._words)
            if command.verb == "watch":
                self._watch = _Watch(self._host, self._write)
                return
            answer = {"version": PROTOCOL_VERSION, **self._host.do(command)}
        except RefusedError as exc:
            self._fail(exc, status=2)
        except NotDoneError as exc:
            self._fail(exc, status=1)
        else:
            self._write(json.dumps(answer))
            self._exit(0)

    def data_received(self, data: bytes, datatype: int | None) -> None:  # noqa: ARG002 - asyncssh's
        if self._watch is None:
            return
        try:
            self._watch.asked(data)
        except RequestError as exc:
            self._fail(exc, status=2)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's
        if self._watch is not None:
            self._watch.close()

    def _write(self, line: str) -> None:
        if self._channel is not None:
            self._channel.write(f"{line}\n".encode())

    def _fail(self, error: Exception, *, status: int) -> None:
        if self._channel is not None:
            self._channel.write_stderr(f"swarm-unitctl: {error}\n".encode())
        self._exit(status)

    def _exit(self, status: int) -> None:
        if self._channel is not None:
            self._channel.exit(status)


class _Watch:
    """`swarm-unitctl watch`, woken by what changes instead of looking for it all the time."""

    def __init__(self, host: Host, write: Callable[[str], None]) -> None:
        self._host = host
        self._write = write
        self._watcher = Watcher(cast("Units", host), cast("Words", host))
        self._requests = Requests()
        self._asked: int | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._heartbeat_at = 0.0
        host.watchers.append(self._hurry)
        self._tell()

    def asked(self, received: bytes) -> None:
        """Take in what came on standard input.

        Raises:
            RequestError: it is something else than a request.
        """
        number = self._requests.feed(received)
        if number is not None:
            self._asked = number
            self._hurry()

    def close(self) -> None:
        self._host.watchers.remove(self._hurry)
        if self._timer is not None:
            self._timer.cancel()

    def _hurry(self) -> None:
        self._wake(self._loop.time() + _TELL_S)

    def _wake(self, at: float) -> None:
        if self._timer is None or self._timer.when() > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(at, self._tell)

    def _tell(self) -> None:
        now = time.monotonic()
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + HEARTBEAT_S
        self._timer, asked = None, self._asked
        self._asked = None
        line = self._watcher.line(look=True, asked=asked)
        if line is not None:
            self._write(json.dumps(line))
        # As late as the real one, which wakes every fifth of a second.
        self._wake(self._loop.time() + max(0.0, self._heartbeat_at - now) + _TELL_S)

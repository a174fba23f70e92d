"""Runs `swarm-unitctl` on this machine or over SSH. Everything else about hosts is the same."""

from __future__ import annotations

import asyncio
import os
import socket
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import asyncssh

from swarm.errors import ConfigError
from swarm.scaler.adapters.known_hosts import KnownHosts
from swarm.scaler.ports import (
    CommandError,
    CommandRefusedError,
    CommandRunner,
    Listener,
    Watch,
)
from swarm.settings import HostSettings, ScalerSettings

#: Commands at once on one host, beside the watch. On an SSH connection sshd allows ten sessions
#: (MaxSessions) by default.
_SESSIONS_PER_HOST = 4
#: Handshakes of one daemon at once: each takes some milliseconds of its processor, and a thousand
#: that began together would all be late.
HANDSHAKES_AT_ONCE = 64
#: Cheaper by half for the short packets of a watch than asyncssh's first choice, which stays next.
_ENCRYPTION = "^aes128-gcm@openssh.com"
#: Bytes of a watch that may be under way. It keeps a host that tells endlessly from taking memory.
_WINDOW = 256 * 1024
#: Of what a program says on standard error, its last words count.
_LAST_WORDS = 4096
#: Bytes that a command may print: more than the list of a host with 99 instances takes.
LONGEST_ANSWER = 2 * 2**20
#: Exit status of `swarm-unitctl` for what it does not know.
_REFUSED = 2


def local_unitctl() -> tuple[str, ...]:
    """The `swarm-unitctl` of this installation."""
    return (str(Path(sysconfig.get_path("scripts")) / "swarm-unitctl"),)


def make_runner(
    host: HostSettings,
    scaler: ScalerSettings,
    environ: Mapping[str, str],
    *,
    known_hosts: KnownHosts,
    handshakes: asyncio.Semaphore | None = None,
) -> CommandRunner:
    """The way to a host, by what config.yaml says of it.

    Those that share `handshakes` open their connections in turn.

    Raises:
        ConfigError: it is a remote one, and there is no key.
    """
    if host.is_local:
        return LocalRunner(local_unitctl(), timeout_s=scaler.command_timeout_s)
    return SshRunner(
        host,
        key=_ssh_key(scaler, environ),
        known_hosts=known_hosts,
        timeout_s=scaler.command_timeout_s,
        handshakes=handshakes,
    )


def _ssh_key(scaler: ScalerSettings, environ: Mapping[str, str]) -> Path:
    """Systemd's credential, else the path in config.yaml."""
    directory = environ.get("CREDENTIALS_DIRECTORY")
    candidates = [Path(directory) / "ssh-key"] if directory else []
    candidates.append(scaler.ssh_key)
    for candidate in candidates:
        if os.access(candidate, os.R_OK):
            return candidate
    raise ConfigError.of("scaler.ssh_key", str(candidates[-1]), "a private key that can be read")


class LocalRunner:
    """A `CommandRunner` for this machine."""

    def __init__(self, program: Sequence[str], *, timeout_s: float) -> None:
        self._program = tuple(program)
        self._timeout_s = timeout_s
        self._watches: set[_LocalWatch] = set()
        self._sessions = asyncio.Semaphore(_SESSIONS_PER_HOST)

    async def run(self, *words: str) -> str:
        async with self._sessions:
            return await self._run(*words)

    async def _run(self, *words: str) -> str:
        answer = _LocalAnswer()
        try:
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: answer, *self._program, *words, stdin=asyncio.subprocess.DEVNULL
            )
        except OSError as exc:
            raise CommandError(f"{self._program[0]} did not start: {exc.strerror}") from exc
        try:
            async with asyncio.timeout(self._timeout_s):
                await answer.over.wait()
        except TimeoutError as exc:
            raise CommandError(f"no answer in {self._timeout_s:g} s") from exc
        finally:
            # Which kills it, if it still runs.
            transport.close()
            await answer.gone.wait()
        return answer.checked(transport.get_returncode())

    async def watch(self, listener: Listener) -> Watch:
        watch = _LocalWatch(listener)
        try:
            await asyncio.get_running_loop().subprocess_exec(lambda: watch, *self._program, "watch")
        except OSError as exc:
            raise CommandError(f"{self._program[0]} did not start: {exc.strerror}") from exc
        self._watches = {each for each in self._watches if not each.gone.is_set()} | {watch}
        return watch

    async def close(self) -> None:
        for watch in self._watches:
            watch.close()
            await watch.gone.wait()


class _Answer:
    """What a command says until it ends, or says too much."""

    def __init__(self) -> None:
        self.is_too_long = False
        self.over = asyncio.Event()
        self._output = bytearray()
        self._errors = b""

    def hear(self, data: bytes, *, is_error: bool) -> None:
        if is_error:
            self._errors = (self._errors + data)[-_LAST_WORDS:]
        elif len(self._output) + len(data) <= LONGEST_ANSWER:
            self._output += data
        else:
            self.is_too_long = True
            self.over.set()

    def checked(self, exit_status: int | None) -> str:
        """Its output.

        Raises:
            CommandError: it failed, or said too much.
        """
        if self.is_too_long:
            raise CommandError(f"its answer has more than {LONGEST_ANSWER} bytes")
        if exit_status != 0:
            raise _why_ended(exit_status, self._errors)
        return self._output.decode(errors="replace")


class _LocalAnswer(_Answer, asyncio.SubprocessProtocol):
    """Of a child of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.gone = asyncio.Event()
        """Set when it has ended."""

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.hear(data, is_error=fd == 2)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.over.set()
        self.gone.set()


class _LocalWatch(asyncio.SubprocessProtocol):
    """A `Watch` that is a child of this process."""

    def __init__(self, listener: Listener) -> None:
        self._listener: Listener | None = listener
        self._transport: asyncio.SubprocessTransport | None = None
        self._errors = b""
        self.gone = asyncio.Event()
        """Set when the process has ended."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self._errors = (self._errors + data)[-_LAST_WORDS:]
        elif self._listener is not None:
            self._listener.heard(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Called when the process has ended, and all that it wrote has come."""
        self.gone.set()
        if self._listener is not None and self._transport is not None:
            self._listener.ended(_why_ended(self._transport.get_returncode(), self._errors))

    def ask(self, request: str) -> None:
        pipe = None if self._transport is None else self._transport.get_pipe_transport(0)
        if isinstance(pipe, asyncio.WriteTransport):
            pipe.write(f"{request}\n".encode())

    def close(self) -> None:
        self._listener = None
        if self._transport is not None:
            with suppress(ProcessLookupError):
                self._transport.kill()
            self._transport.close()


class SshRunner:
    """A `CommandRunner` over one lasting SSH connection, made again when it is lost.

    The host answers through a forced command; what is sent are its words, never a shell line.
    """

    def __init__(
        self,
        host: HostSettings,
        *,
        key: Path,
        known_hosts: KnownHosts,
        timeout_s: float,
        handshakes: asyncio.Semaphore | None = None,
    ) -> None:
        self._handshakes = handshakes or asyncio.Semaphore(HANDSHAKES_AT_ONCE)
        self._host = host
        self._key = key
        self._known_hosts = known_hosts
        self._timeout_s = timeout_s
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._sessions = asyncio.Semaphore(_SESSIONS_PER_HOST)

    async def run(self, *words: str) -> str:
        answer = _SshAnswer()
        async with self._in_time(), self._sessions:
            connection = await self._connect()
            await connection.create_session(
                lambda: answer, " ".join(words), encoding=None, window=_WINDOW
            )
            await answer.over.wait()
        if answer.is_too_long or answer.exit_status is None:
            self._drop()
        if answer.exit_status is None and not answer.is_too_long:
            raise CommandError("SSH: connection lost before the answer")
        return answer.checked(answer.exit_status)

    async def watch(self, listener: Listener) -> Watch:
        async with self._in_time():
            connection = await self._connect()
            watch = _SshWatch(listener, connection)
            await connection.create_session(lambda: watch, "watch", encoding=None, window=_WINDOW)
        return watch

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        """Give what goes wrong inside a reason, and the connection up with it.

        A host that stopped answering would hold it for minutes.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError as exc:
            self._drop()
            raise CommandError(f"no answer in {self._timeout_s:g} s") from exc
        except asyncssh.HostKeyNotVerifiable as exc:
            self._drop()
            name, path = f"{self._host.address} port {self._host.port}", self._known_hosts.path
            raise CommandError(
                f"SSH: {exc}: {name} has another key than {path} says, or none there"
            ) from exc
        except (asyncssh.Error, OSError, ValueError) as exc:
            # ValueError: a key or a known_hosts file that cannot be parsed.
            self._drop()
            raise CommandError(f"SSH: {str(exc) or type(exc).__name__}") from exc

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()
            self._connection = None

    async def _connect(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                # Outside, as a host that is not there would keep others waiting.
                connected = await _dial(self._host.address, self._host.port)
                try:
                    async with self._handshakes:
                        self._connection = await self._shake_hands(connected)
                except BaseException:
                    connected.close()
                    raise
            return self._connection

    async def _shake_hands(self, connected: socket.socket) -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            self._host.address,
            port=self._host.port,
            sock=connected,
            username=self._host.user,
            client_keys=[str(self._key)],
            known_hosts=self._known_hosts.read(),
            # Nothing of the user's own: no ~/.ssh/config, no agent, no password.
            config=None,
            agent_path=None,
            preferred_auth="publickey",
            encryption_algs=_ENCRYPTION,
            # No keepalive: a watch that falls silent ends the connection, a command that is not
            # answered too.
        )

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None


async def _dial(address: str, port: int) -> socket.socket:
    """A connection to the first of the name's addresses that takes one.

    Raises:
        OSError: none does.
    """
    loop = asyncio.get_running_loop()
    error = OSError(f"{address} has no address")
    for family, kind, protocol, _, place in await loop.getaddrinfo(
        address, port, type=socket.SOCK_STREAM
    ):
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)  # noqa: FBT003 - socket's
        try:
            await loop.sock_connect(connection, place)
        except OSError as exc:
            connection.close()
            error = exc
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    raise error


class _SshAnswer(_Answer, asyncssh.SSHClientSession[bytes]):
    """Of a command on an SSH connection, which whoever waits gives up if it says too much."""

    exit_status: int | None = None

    def data_received(self, data: bytes, datatype: int | None) -> None:
        self.hear(data, is_error=datatype == asyncssh.EXTENDED_DATA_STDERR)

    def exit_status_received(self, status: int) -> None:
        self.exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncssh's
        self.over.set()


class _SshWatch(asyncssh.SSHClientSession[bytes]):
    """A `Watch` on an SSH connection."""

    def __init__(self, listener: Listener, connection: asyncssh.SSHClientConnection) -> None:
        self._listener: Listener | None = listener
        self._connection = connection
        self._is_gone = False
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._errors = b""

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan

    def data_received(self, data: bytes, datatype: int | None) -> None:
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._errors = (self._errors + data)[-_LAST_WORDS:]
        elif self._listener is not None:
            self._listener.heard(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone = True
        if self._listener is None or self._channel is None:
            return
        status = self._channel.get_exit_status()
        if status is None:
            reason = "connection lost" if exc is None else str(exc) or type(exc).__name__
            self._listener.ended(CommandError(f"SSH: {reason}"))
        else:
            self._listener.ended(_why_ended(status, self._errors))

    def ask(self, request: str) -> None:
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(f"{request}\n".encode())

    def close(self) -> None:
        self._listener = None
        if not self._is_gone:
            self._connection.abort()


def _why_ended(status: int | None, errors: bytes) -> CommandError:
    lines = errors.decode(errors="replace").strip().splitlines() or [f"exit status {status}"]
    reason = lines[-1].removeprefix("swarm-unitctl: ")
    return CommandRefusedError(reason) if status == _REFUSED else CommandError(reason)

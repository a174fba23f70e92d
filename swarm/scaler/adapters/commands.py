"""Runs `swarm-unitctl` on this machine or over SSH. Everything else about hosts is the same."""

from __future__ import annotations

import asyncio
import os
import sysconfig
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import asyncssh

from swarm.errors import ConfigError
from swarm.scaler.ports import CommandError, CommandRunner
from swarm.settings import HostSettings, ScalerSettings

#: Commands at once on one SSH connection; sshd's MaxSessions is 10 by default.
_SESSIONS_PER_HOST = 4
_KEEPALIVE_S = 5


def local_unitctl() -> tuple[str, ...]:
    """The `swarm-unitctl` of this installation."""
    return (str(Path(sysconfig.get_path("scripts")) / "swarm-unitctl"),)


def make_runner(
    host: HostSettings, scaler: ScalerSettings, environ: Mapping[str, str]
) -> CommandRunner:
    """The way to a host, by what config.yaml says of it.

    Raises:
        ConfigError: it is a remote one, and there is no key.
    """
    if host.is_local:
        return LocalRunner(local_unitctl(), timeout_s=scaler.command_timeout_s)
    return SshRunner(
        host,
        key=_ssh_key(scaler, environ),
        known_hosts=scaler.known_hosts,
        timeout_s=scaler.command_timeout_s,
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

    async def run(self, *words: str) -> str:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._program,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as exc:
            raise CommandError(f"{self._program[0]} did not start: {exc.strerror}") from exc
        try:
            async with asyncio.timeout(self._timeout_s):
                output, errors = await process.communicate()
        except TimeoutError as exc:
            raise CommandError(f"no answer in {self._timeout_s:g} s") from exc
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        return _checked(
            process.returncode, output.decode(errors="replace"), errors.decode(errors="replace")
        )

    async def close(self) -> None:
        return


class SshRunner:
    """A `CommandRunner` over one lasting SSH connection, made again when it is lost.

    The host answers through a forced command; what is sent are its words, never a shell line.
    """

    def __init__(
        self, host: HostSettings, *, key: Path, known_hosts: Path, timeout_s: float
    ) -> None:
        self._host = host
        self._key = key
        self._known_hosts = known_hosts
        self._timeout_s = timeout_s
        self._connection: asyncssh.SSHClientConnection | None = None
        self._connecting = asyncio.Lock()
        self._sessions = asyncio.Semaphore(_SESSIONS_PER_HOST)

    async def run(self, *words: str) -> str:
        try:
            async with asyncio.timeout(self._timeout_s), self._sessions:
                connection = await self._connect()
                done = await connection.run(" ".join(words), check=False)
        except TimeoutError as exc:
            # A host that stopped answering would hold this connection for minutes.
            self._drop()
            raise CommandError(f"no answer in {self._timeout_s:g} s") from exc
        except (asyncssh.Error, OSError, ValueError) as exc:
            # ValueError: a key or a known_hosts file that cannot be parsed.
            self._drop()
            raise CommandError(f"SSH: {str(exc) or type(exc).__name__}") from exc
        if done.exit_status is None:
            self._drop()
            raise CommandError("SSH: connection lost before the answer")
        return _checked(done.exit_status, str(done.stdout or ""), str(done.stderr or ""))

    async def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            await self._connection.wait_closed()
            self._connection = None

    async def _connect(self) -> asyncssh.SSHClientConnection:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncssh.connect(
                    self._host.address,
                    port=self._host.port,
                    username=self._host.user,
                    client_keys=[str(self._key)],
                    known_hosts=str(self._known_hosts),
                    # Nothing of the user's own: no ~/.ssh/config, no agent, no password.
                    config=None,
                    agent_path=None,
                    preferred_auth="publickey",
                    keepalive_interval=_KEEPALIVE_S,
                    keepalive_count_max=2,
                )
            return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None


def _checked(status: int | None, output: str, errors: str) -> str:
    if status == 0:
        return output
    lines = errors.strip().splitlines() or [f"exit status {status}"]
    raise CommandError(lines[-1].removeprefix("swarm-unitctl: "))

"""The two servers that tests here speak to.

An SSH server in this process whose forced command runs the real swarm-unitctl, and a Redis that has
every kind of key.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from lab.hosted import Certificates, make_certificates
from swarm.delivery.intake import Intake
from swarm.scaler.adapters.commands import SshRunner
from swarm.scaler.adapters.known_hosts import KnownHosts
from swarm.settings import HostSettings
from swarm.worker.control import ControlServer
from swarm.worker.drain import Drain, handlers
from tests.builders import make_cgroups, make_status
from tests.contract.redis_keys import KEYS
from tests.role_redis import RoleRedis
from tests.stub_bus import StubBus
from tests.stub_systemctl import StubSystemctl

REPOSITORY = Path(__file__).parents[2]
UNITCTL = (sys.executable, "-m", "swarm.unitctl")


@pytest.fixture
def systemctl(tmp_path: Path) -> StubSystemctl:
    return StubSystemctl(tmp_path)


@pytest.fixture
def bus(systemctl: StubSystemctl) -> Iterator[StubBus]:
    with StubBus(systemctl) as bus:
        yield bus


def unitctl_environ(systemctl: StubSystemctl) -> dict[str, str]:
    return {**systemctl.environ, "PYTHONPATH": str(REPOSITORY)}


@dataclass
class SshHost:
    """The server's side of one host."""

    directory: Path
    environ: dict[str, str]
    handle: Callable[[SshHost, asyncssh.SSHServerProcess[bytes]], Any] | None = None
    """What runs for each command instead of swarm-unitctl."""
    knows_watch: bool = True
    """False for a host of a release that has neither it nor drains."""
    programs: list[asyncio.subprocess.Process] = field(default_factory=list)
    """Every swarm-unitctl that was started."""
    commands: list[str | None] = field(default_factory=list)
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)
    port: int = 0
    _server: asyncssh.SSHAcceptor | None = None

    async def serve(self) -> None:
        client_key = asyncssh.generate_private_key("ssh-ed25519")
        client_key.write_private_key(str(self.key))
        client_key.write_public_key(str(self.directory / "authorized"))
        host_key = await self._listen()
        public = host_key.export_public_key().decode().split(" ")
        self.trust(f"{public[0]} {public[1].strip()}")

    async def change_key(self) -> None:
        """Another machine takes the address: with a key of its own, and the same clients."""
        if self._server is not None:
            self._server.close()
        self.drop_connections()
        await self._listen()

    async def _listen(self) -> asyncssh.SSHKey:
        """With a new key."""
        host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._server = await asyncssh.create_server(
            lambda: _Server(self),
            "127.0.0.1",
            self.port,
            server_host_keys=[host_key],
            authorized_client_keys=str(self.directory / "authorized"),
            process_factory=self._process,
            encoding=None,
            reuse_address=True,
        )
        self.port = self._server.get_port()
        return host_key

    @property
    def key(self) -> Path:
        return self.directory / "id_ed25519"

    @property
    def status_directory(self) -> Path:
        return self.directory / "instances"

    @property
    def known_hosts(self) -> Path:
        return self.directory / "known_hosts"

    def trust(self, public_key: str) -> None:
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public_key}\n", encoding="utf-8")

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for connection in self.connections:
                connection.abort()
            await self._server.wait_closed()
        # None outlives its connection.
        async with asyncio.timeout(5):
            for program in self.programs:
                await program.wait()

    def drop_connections(self) -> None:
        for connection in self.connections:
            connection.abort()
        self.connections.clear()

    def runner(self, *, timeout_s: float = 5.0, port: int | None = None) -> SshRunner:
        host = HostSettings.model_validate(
            {"address": "127.0.0.1", "port": port or self.port, "max_instances": 1}
        )
        known_hosts = KnownHosts(self.known_hosts)
        return SshRunner(host, key=self.key, known_hosts=known_hosts, timeout_s=timeout_s)

    async def _process(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        self.commands.append(process.command)
        verb = (process.command or "").split(" ")[0]
        if verb in {"watch", "drain", "undrain"} and not self.knows_watch:
            process.stderr.write(f"swarm-unitctl: refused: '{verb}'; expected: list\n".encode())
            process.exit(2)
            return
        if self.handle is not None:
            await self.handle(self, process)
            return
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.unitctl", str(self.status_directory)),
            env={**self.environ, "SSH_ORIGINAL_COMMAND": process.command or ""},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self.programs.append(program)
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stderr is not None
        pump = asyncio.create_task(_pump(process.stdin, program.stdin))
        try:
            while output := await program.stdout.read(65_536):
                process.stdout.write(output)
            process.stderr.write(await program.stderr.read())
            process.exit(await program.wait())
        finally:
            pump.cancel()


class RunningInstance:
    """An instance's own socket, drain and status file, all of them this process'."""

    def __init__(
        self, directory: Path, systemctl: StubSystemctl, number: int, *, active: int = 0
    ) -> None:
        """In `directory` are those of a `bench.unitctl`."""
        for name in ("instances", "control"):
            (directory / name).mkdir(exist_ok=True)
        self.active = active
        self._idle_since = time.monotonic()
        self._directory = directory
        self._number = number
        self._drain = Drain(Intake(), lambda: self.active > 0)
        path = directory / "control" / f"browser-{number}.sock"
        self._control = ControlServer(path, handlers(self._drain))
        self._control.start()
        self.write()
        group = f"/browser-{number}"
        make_cgroups(directory / "cgroups", group, os.getpid())
        unit = f"celery-browser@{number}.service"
        systemctl.add(unit, main_pid=os.getpid(), control_group=group)

    def write(self) -> None:
        """As its reporter does, four times a second."""
        drain = self._drain.look()
        make_status(
            number=self._number,
            pid=os.getpid(),
            active=self.active,
            idle_since=None if self.active else self._idle_since,
            written_at=time.monotonic(),
            drain=None if drain.state == "consuming" else drain,
        ).write(self._directory / "instances")

    def close(self) -> None:
        self._control.stop()


async def _pump(source: asyncssh.SSHReader[bytes], target: asyncio.StreamWriter) -> None:
    """What sshd does with standard input, which ends with its channel however that ends."""
    try:
        while received := await source.read(65_536):
            target.write(received)
    except (asyncssh.Error, OSError):
        pass
    finally:
        target.close()


class _Server(asyncssh.SSHServer):
    def __init__(self, host: SshHost) -> None:
        self._host = host

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._host.connections.append(conn)


@pytest.fixture
async def ssh_host(tmp_path: Path, systemctl: StubSystemctl) -> AsyncIterator[SshHost]:
    host = SshHost(tmp_path, unitctl_environ(systemctl))
    await host.serve()
    yield host
    await host.close()


@pytest.fixture
def on_path(systemctl: StubSystemctl, monkeypatch: pytest.MonkeyPatch) -> StubSystemctl:
    """The stub as this process' own systemctl."""
    for name, value in unitctl_environ(systemctl).items():
        if os.environ.get(name) != value:
            monkeypatch.setenv(name, value)
    return systemctl


@pytest.fixture
def redis(role_redis: RoleRedis) -> Iterator[RoleRedis]:
    """Every kind of key, with something in it."""
    with role_redis.connect("admin") as admin:
        admin.flushall()
        for command in KEYS.values():
            admin.execute_command(*command)
    yield role_redis
    with role_redis.connect("admin") as admin:
        admin.config_set("maxmemory", role_redis.mark)
        admin.flushall()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of a private authority, for the stand-in for a hosted Redis."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))

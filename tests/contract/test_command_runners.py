"""What goes wrong between the scaler and a host ends as a CommandError, in time."""

from __future__ import annotations

import asyncio
import os
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import pytest

from swarm.scaler.adapters.commands import LONGEST_ANSWER, LocalRunner, SshRunner
from swarm.scaler.adapters.systemd import parse_list
from swarm.scaler.model import HostReport
from swarm.scaler.ports import CommandError, CommandRunner
from tests.contract.conftest import SshHost
from tests.stub_systemctl import StubSystemctl


@pytest.fixture
async def runner(ssh_host: SshHost) -> AsyncIterator[SshRunner]:
    runner = ssh_host.runner()
    yield runner
    await runner.close()


def python(code: str, *, timeout_s: float = 5.0) -> LocalRunner:
    return LocalRunner((sys.executable, "-c", code), timeout_s=timeout_s)


async def listed(runner: CommandRunner) -> HostReport:
    return parse_list(await runner.run("list"), host="h1", report_max_age_s=15, at=5000.0)


async def test_a_local_program_that_hangs_is_killed_in_time(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = (
        f"import os, time, pathlib; pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()));"
        "time.sleep(60)"
    )
    started_at = time.monotonic()
    with pytest.raises(CommandError, match=r"no answer in 0\.5 s"):
        await python(code, timeout_s=0.5).run("list")
    assert time.monotonic() - started_at < 2
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


async def test_few_local_programs_run_at_once(tmp_path: Path) -> None:
    code = (
        f"import os, time, pathlib; own = pathlib.Path({str(tmp_path)!r}, str(os.getpid()));"
        "own.touch(); time.sleep(0.2); print(len(os.listdir(own.parent))); own.unlink()"
    )
    runner = python(code)
    counts = await asyncio.gather(*(runner.run("list") for _ in range(10)))
    assert max(map(int, counts)) <= 4


@contextmanager
def little_memory() -> Iterator[None]:
    """Some times the longest answer, at most."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * LONGEST_ANSWER


TOO_MUCH = f"its answer has more than {LONGEST_ANSWER} bytes"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_local_program_that_prints_without_end_is_killed(stream: str) -> None:
    code = f"import sys\nwhile True: sys.{stream}.buffer.write(b'x' * 65536)"
    told = TOO_MUCH if stream == "stdout" else "no answer in 1 s"
    with little_memory(), pytest.raises(CommandError, match=told):
        await python(code, timeout_s=30.0 if stream == "stdout" else 1.0).run("list")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
async def test_a_host_that_prints_without_end_is_given_up(ssh_host: SshHost, stream: str) -> None:
    async def babble(_: SshHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        writer = process.stdout if stream == "stdout" else process.stderr
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    runner = ssh_host.runner(timeout_s=30.0 if stream == "stdout" else 1.0)
    await listed(runner)
    ssh_host.handle = babble
    told = TOO_MUCH if stream == "stdout" else "no answer in 1 s"
    with little_memory(), pytest.raises(CommandError, match=told):
        await runner.run("drain", "browser", "1")
    # A connection that says so much is not used any more.
    ssh_host.handle = None
    await listed(runner)
    assert len(ssh_host.connections) == 2
    await runner.close()


async def test_the_longest_answer_comes_whole(ssh_host: SshHost, runner: SshRunner) -> None:
    answer = "x" * LONGEST_ANSWER

    async def tell(_: SshHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.stdout.write(answer.encode())
        process.exit(0)

    ssh_host.handle = tell
    assert await runner.run("list") == answer
    code = f"print('x' * {LONGEST_ANSWER}, end='')"
    assert await python(code, timeout_s=30).run("list") == answer


async def test_what_a_host_says_of_a_failure_is_one_line_for_a_terminal(
    ssh_host: SshHost, runner: SshRunner
) -> None:
    async def refuse(_: SshHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.stderr.write(b"\x1b[2J\x1b]0;owned\x07" + b"y" * 3000)
        process.exit(1)

    ssh_host.handle = refuse
    with pytest.raises(CommandError) as caught:
        await runner.run("list")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) <= 500


async def test_a_local_program_that_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="did not start: No such file"):
        await LocalRunner((str(tmp_path / "absent"),), timeout_s=1).run("list")


async def test_the_last_line_of_a_failure_is_the_reason() -> None:
    code = "import sys; print('Traceback\\nValueError: no', file=sys.stderr); sys.exit(1)"
    with pytest.raises(CommandError, match=r"^ValueError: no$"):
        await python(code).run("list")
    with pytest.raises(CommandError, match=r"^exit status 9$"):
        await python("import sys; sys.exit(9)").run("list")


async def test_the_words_reach_the_forced_command_whole(
    ssh_host: SshHost, runner: SshRunner, systemctl: StubSystemctl
) -> None:
    await runner.run("start", "browser", "3")
    assert ssh_host.commands == ["start browser 3"]
    assert "start --no-block celery-browser@3.service" in systemctl.calls[-1]


@pytest.mark.parametrize("words", [["sh"], ["list;", "id"], ["start", "browser", "$(id)"], [""]])
async def test_the_forced_command_refuses_everything_else(
    runner: SshRunner, systemctl: StubSystemctl, words: list[str]
) -> None:
    with pytest.raises(CommandError, match="refused"):
        await runner.run(*words)
    assert systemctl.calls == []


async def test_one_connection_serves_many_commands(ssh_host: SshHost, runner: SshRunner) -> None:
    await asyncio.gather(*(runner.run("list") for _ in range(8)))
    await runner.run("list")
    assert len(ssh_host.connections) == 1


async def test_a_host_with_another_key_is_refused(ssh_host: SshHost, runner: SshRunner) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    ssh_host.trust(other.strip())
    with pytest.raises(CommandError, match="SSH: Host key is not trusted"):
        await runner.run("list")
    assert ssh_host.commands == []


async def test_a_key_that_is_added_later_is_known_then(ssh_host: SshHost) -> None:
    right = ssh_host.known_hosts.read_text(encoding="utf-8")
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    runner = ssh_host.runner()
    for wrong in (None, "", "nonsense\n", f"[127.0.0.1]:{ssh_host.port} {other}"):
        ssh_host.known_hosts.unlink(missing_ok=True)
        if wrong is not None:
            ssh_host.known_hosts.write_text(wrong, encoding="utf-8")
        with pytest.raises(CommandError, match="SSH: "):
            await runner.run("list")
    ssh_host.known_hosts.write_text(right, encoding="utf-8")
    await runner.run("list")
    await runner.close()
    assert ssh_host.commands == ["list"]


@pytest.mark.parametrize("content", [None, "", "nonsense\n", "[127.0.0.1]:1 ssh-ed25519 ???\n"])
async def test_without_the_hosts_key_it_is_refused(
    ssh_host: SshHost, runner: SshRunner, content: str | None
) -> None:
    if content is None:
        ssh_host.known_hosts.unlink()
    else:
        ssh_host.known_hosts.write_text(content, encoding="utf-8")
    with pytest.raises(CommandError, match="SSH: "):
        await runner.run("list")
    assert ssh_host.commands == []


@pytest.mark.parametrize("content", [None, "", "nonsense\n"])
async def test_a_key_that_cannot_be_read_is_told(
    ssh_host: SshHost, runner: SshRunner, content: str | None
) -> None:
    if content is None:
        ssh_host.key.unlink()
    else:
        ssh_host.key.write_text(content, encoding="utf-8")
    with pytest.raises(CommandError, match="SSH: "):
        await runner.run("list")


async def test_a_key_the_host_does_not_know_is_refused(
    ssh_host: SshHost, runner: SshRunner
) -> None:
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(ssh_host.key))
    with pytest.raises(CommandError, match="SSH: Permission denied"):
        await runner.run("list")


async def test_a_lost_connection_is_made_again(ssh_host: SshHost, runner: SshRunner) -> None:
    await runner.run("list")
    ssh_host.drop_connections()
    for _ in range(3):
        try:
            await runner.run("list")
            break
        except CommandError:
            continue
    assert (await listed(runner)).instances == ()
    assert len(ssh_host.connections) == 1


async def test_a_connection_lost_during_a_command_is_an_error_and_made_again(
    ssh_host: SshHost, runner: SshRunner
) -> None:
    async def drop(host: SshHost, _: asyncssh.SSHServerProcess[bytes]) -> None:
        host.drop_connections()

    ssh_host.handle = drop
    with pytest.raises(CommandError, match="SSH: "):
        await runner.run("list")
    ssh_host.handle = None
    assert (await listed(runner)).instances == ()


async def test_a_command_that_hangs_is_given_up_and_the_next_one_works(
    ssh_host: SshHost,
) -> None:
    async def hang(_: SshHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        await process.wait_closed()

    runner = ssh_host.runner(timeout_s=0.5)
    ssh_host.handle = hang
    started_at = time.monotonic()
    with pytest.raises(CommandError, match=r"no answer in 0\.5 s"):
        await runner.run("list")
    assert time.monotonic() - started_at < 2
    ssh_host.handle = None
    later = ssh_host.runner()
    assert (await listed(later)).instances == ()
    await later.close()
    await runner.close()


async def test_a_server_that_accepts_and_says_nothing_is_given_up(ssh_host: SshHost) -> None:
    silent = asyncio.Event()

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silent.wait()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    runner = ssh_host.runner(timeout_s=0.5, port=port)
    started_at = time.monotonic()
    with pytest.raises(CommandError, match=r"no answer in 0\.5 s"):
        await runner.run("list")
    assert time.monotonic() - started_at < 2
    await runner.close()
    silent.set()
    server.close()
    await server.wait_closed()


async def test_a_server_that_is_no_ssh_server_is_an_error(ssh_host: SshHost) -> None:
    async def babble(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(CommandError):
        await ssh_host.runner(timeout_s=2, port=port).run("list")
    server.close()
    await server.wait_closed()


async def test_a_port_that_is_closed_is_an_error(ssh_host: SshHost) -> None:
    with pytest.raises(CommandError, match="SSH: "):
        await ssh_host.runner(port=1).run("list")


async def test_closing_twice_is_allowed(runner: SshRunner) -> None:
    await runner.run("list")
    await runner.close()
    await runner.close()

"""Real channels to real programs: what breaks them, and that nothing is done on what they told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import NamedTuple

import asyncssh
import pytest

from swarm.scaler.adapters.channel import SILENCE_S, WatchedUnits
from swarm.scaler.adapters.commands import LocalRunner
from swarm.scaler.clock import since_boot
from swarm.scaler.model import HostReport, Unknown
from swarm.scaler.ports import BrokerSide, CommandError, CommandRunner
from swarm.scaler.reconcile import Reconciler
from tests.builders import AT, NEVER, make_settings
from tests.contract.conftest import RunningInstance, SshHost
from tests.fakes import FakeQueues, FakeView
from tests.stub_bus import StubBus
from tests.stub_systemctl import StubSystemctl

GARBAGE = [
    (b"hello\n", "not understood"),
    (b"\xff\xfe\x00\x01\n", "not understood"),
    (b'{"sequence": 0, "version": 7}\n', "protocol version 7"),
    (b"[" * 100_000 + b"\n", "not understood"),
    (b"", "exit status 0"),
]
GARBAGE_IDS = ["text", "binary", "version", "deep", "nothing"]


def watched(runner: CommandRunner) -> WatchedUnits:
    return WatchedUnits("h1", runner, report_max_age_s=15)


async def shown(
    units: WatchedUnits, wanted: Callable[[HostReport | Unknown], bool], *, timeout_s: float = 6.0
) -> HostReport | Unknown:
    """The first report that is as wanted, else the last."""
    report = await units.report()
    for _ in range(int(timeout_s / 0.05)):
        if wanted(report):
            break
        await asyncio.sleep(0.05)
        report = await units.report()
    return report


def is_known(report: HostReport | Unknown) -> bool:
    return isinstance(report, HostReport)


def says(words: str) -> Callable[[HostReport | Unknown], bool]:
    return lambda report: isinstance(report, Unknown) and words in report.reason


@pytest.mark.parametrize(("answer", "reason"), GARBAGE, ids=GARBAGE_IDS)
async def test_garbage_on_this_machine_makes_a_host_unknown(answer: bytes, reason: str) -> None:
    head, tail = answer[:100], answer[-1:]
    code = (
        f"import sys; sys.stdout.buffer.write({head!r} * {max(1, len(answer) // 100)} + {tail!r})"
    )
    if len(answer) < 200:
        code = f"import sys; sys.stdout.buffer.write({answer!r})"
    runner = LocalRunner((sys.executable, "-c", code), timeout_s=5)
    async with watched(runner) as units:
        report = await shown(units, says(reason))
    assert says(reason)(report), report
    await runner.close()


@pytest.mark.parametrize(("answer", "reason"), GARBAGE, ids=GARBAGE_IDS)
async def test_garbage_over_ssh_makes_a_host_unknown(
    ssh_host: SshHost, bus: StubBus, answer: bytes, reason: str
) -> None:
    async def garbage(_: SshHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        process.stdout.write(answer)
        process.exit(0)

    ssh_host.handle = garbage
    runner = ssh_host.runner()
    async with watched(runner) as units:
        report = await shown(units, says(reason))
        assert says(reason)(report), report
        ssh_host.handle = None
        assert is_known(await shown(units, is_known))
    await runner.close()


async def test_endless_output_without_a_line_takes_no_memory(ssh_host: SshHost) -> None:
    async def babble(_: SshHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        while True:
            process.stdout.write(b"x" * 65_536)
            await process.stdout.drain()

    ssh_host.handle = babble
    runner = ssh_host.runner()
    tracemalloc.start()
    async with watched(runner) as units:
        report = await shown(units, says("a line too long"))
        assert says("a line too long")(report), report
        await asyncio.sleep(2)
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    await runner.close()
    assert peak < 40 * 2**20


async def test_a_host_with_another_key_is_refused_by_name(ssh_host: SshHost) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    ssh_host.trust(other.strip())
    runner = ssh_host.runner()
    async with watched(runner) as units:
        report = await shown(units, says("Host key is not trusted"))
        assert isinstance(report, Unknown)
        assert f"127.0.0.1 port {ssh_host.port} has another key than" in report.reason
        assert str(ssh_host.known_hosts) in report.reason
        with pytest.raises(CommandError, match="Host key is not trusted"):
            await units.stop("browser", 1, NEVER)
    await runner.close()
    assert ssh_host.commands == []


async def test_a_host_whose_key_changes_later_is_told_nothing_any_more(
    ssh_host: SshHost, systemctl: StubSystemctl, bus: StubBus
) -> None:
    """Its address may be another machine's by now."""
    systemctl.add("celery-browser@1.service")
    runner = ssh_host.runner()
    async with watched(runner) as units:
        assert is_known(await shown(units, is_known))
        await ssh_host.change_key()
        report = await shown(units, says("Host key is not trusted"))
        assert says("Host key is not trusted")(report), report
        ssh_host.commands.clear()
        for command in (units.start, partial(units.stop, proved=NEVER), units.drain, units.undrain):
            with pytest.raises(CommandError, match="Host key is not trusted"):
                await command("browser", 1)
        assert says("Host key is not trusted")(await units.report())
    await runner.close()
    assert ssh_host.commands == []
    assert not any(" show " not in call for call in systemctl.calls)


async def test_heartbeats_without_a_picture_are_no_picture(ssh_host: SshHost, bus: StubBus) -> None:
    """A host that begins in the middle has not told what runs there."""

    async def beat(_: SshHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        for sequence in range(5, 100):
            told = {"sequence": sequence, "now": time.monotonic(), "version": 1}
            process.stdout.write(json.dumps(told).encode() + b"\n")
            await asyncio.sleep(0.05)

    ssh_host.handle = beat
    runner = ssh_host.runner()
    async with watched(runner) as units:
        report = await shown(units, says("line 5, expected 0"))
        assert says("line 5, expected 0")(report), report
    await runner.close()


async def test_a_host_that_accepts_and_says_nothing_is_unknown(ssh_host: SshHost) -> None:
    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await over.wait()
        writer.close()

    over = asyncio.Event()
    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    runner = ssh_host.runner(timeout_s=0.5, port=server.sockets[0].getsockname()[1])
    async with watched(runner) as units:
        report = await shown(units, says("no answer in 0.5 s"))
        assert says("no answer in 0.5 s")(report), report
        started = time.monotonic()
        await units.report()
        assert time.monotonic() - started < 0.1
    await runner.close()
    over.set()
    server.close()
    await server.wait_closed()


async def test_a_lost_channel_is_opened_again_and_the_picture_is_whole(
    ssh_host: SshHost, systemctl: StubSystemctl, bus: StubBus
) -> None:
    systemctl.add("celery-browser@1.service")
    runner = ssh_host.runner()
    async with watched(runner) as units:
        assert is_known(await shown(units, is_known))
        ssh_host.drop_connections()
        assert says("SSH: ")(await shown(units, says("SSH: ")))
        systemctl.add("celery-browser@2.service")
        report = await shown(units, is_known)
        assert isinstance(report, HostReport)
        assert [instance.number for instance in report.instances] == [1, 2]
        assert len(ssh_host.connections) == 1
    await runner.close()


async def test_a_watcher_that_is_killed_is_started_again(
    ssh_host: SshHost, systemctl: StubSystemctl, bus: StubBus
) -> None:
    systemctl.add("celery-browser@1.service")
    runner = ssh_host.runner()
    async with watched(runner) as units:
        assert is_known(await shown(units, is_known))
        ssh_host.programs[0].kill()
        assert says("exit status")(await shown(units, says("exit status")))
        assert is_known(await shown(units, is_known))
    await runner.close()
    # One to look with and one to act with, no more.
    assert ssh_host.commands == ["watch", "watch"]


async def test_at_most_four_commands_run_at_once_beside_the_watch(
    ssh_host: SshHost, bus: StubBus
) -> None:
    running, most = 0, 0

    async def slow(_: SshHost, process: asyncssh.SSHServerProcess[bytes]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        process.exit(0)

    runner = ssh_host.runner()
    async with watched(runner) as units:
        assert is_known(await shown(units, is_known))
        ssh_host.handle = slow
        await asyncio.gather(*(units.start("browser", number) for number in range(1, 13)))
        assert is_known(await units.report())
    await runner.close()
    assert most == 4
    assert len(ssh_host.connections) == 1


class Idle(NamedTuple):
    """A channel, and how the instances behind it renew their word."""

    units: WatchedUnits
    renew: Callable[[], None]


@pytest.fixture
async def idle(ssh_host: SshHost, systemctl: StubSystemctl, bus: StubBus) -> AsyncIterator[Idle]:
    """To a host on which two instances are idle, one more than is needed."""
    instances = [RunningInstance(ssh_host.directory, systemctl, number) for number in (1, 2)]

    def renew() -> None:
        for instance in instances:
            instance.write()

    runner = ssh_host.runner()
    async with watched(runner) as units:
        yield Idle(units, renew)
    for instance in instances:
        instance.close()
    await runner.close()


async def turned(
    idle: Idle, seconds: float, *, until: Callable[[], bool] = lambda: False
) -> list[HostReport | Unknown]:
    """What a scaler saw of the host, by turns of half a second."""
    queues = FakeQueues({"browser": 0, "analysis": 0})
    settings = make_settings(
        hosts={"h1": {"address": "local", "max_instances": 4}},
        scaler={"stabilisation_s": 0},
    )
    side = BrokerSide(queues, FakeView(queues))
    reconciler = Reconciler(settings, {"primary": side}, {"h1": idle.units})
    seen = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        idle.renew()
        outcome = await reconciler.turn(since_boot(), at=AT)
        seen.append(outcome.observation.hosts["h1"])
        await asyncio.sleep(0.5)
    return seen


async def test_what_is_idle_is_stopped_on_a_host_that_tells(idle: Idle, ssh_host: SshHost) -> None:
    """So that nothing is stopped below is because of what is frozen there."""
    await turned(idle, 60, until=lambda: any("stop" in str(each) for each in ssh_host.commands))
    watch, *drains, stop = ssh_host.commands
    # Its drain is its second state, and that it is idle its third.
    assert (watch, stop) == ("watch", f"stop browser 1 {os.getpid()} 3")
    report = await idle.units.report()
    assert isinstance(report, HostReport)
    assert [instance.number for instance in report.instances] == [2]
    assert len(drains) >= 2
    assert set(drains) == {"drain browser 1"}


async def test_a_frozen_watcher_is_not_believed_and_nothing_is_stopped(
    idle: Idle, ssh_host: SshHost
) -> None:
    assert is_known(await shown(idle.units, is_known))
    ssh_host.programs[0].send_signal(signal.SIGSTOP)
    try:
        seen = await turned(idle, SILENCE_S + 4)
    finally:
        ssh_host.programs[0].send_signal(signal.SIGCONT)
    assert is_known(seen[0])
    assert says("nothing was heard of it")(seen[-1])
    # What was told to drain before the silence was noticed is told nothing more.
    assert set(ssh_host.commands) == {"watch", "drain browser 1"}

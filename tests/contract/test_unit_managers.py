"""What the scaler may rely on of a host: in memory, on this machine, over SSH."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from swarm.scaler.adapters.channel import WatchedUnits
from swarm.scaler.adapters.commands import LocalRunner
from swarm.scaler.model import HostReport, Instance, InstanceState, Unknown
from swarm.scaler.ports import CommandError, CommandRefusedError, CommandRunner, UnitManager
from tests.builders import NEVER
from tests.contract.conftest import RunningInstance, SshHost
from tests.fakes import FakeUnits
from tests.stub_bus import StubBus
from tests.stub_systemctl import StubSystemctl

RIGS = ["fake", "local", "ssh", "ssh, earlier release"]


class Rig(Protocol):
    """A unit manager and the means to arrange its host."""

    units: UnitManager

    def add(self, pool: str, number: int, state: InstanceState) -> None: ...
    def run(self, number: int, *, active: int = 0) -> None: ...
    def end_task(self, number: int) -> None: ...
    def refuse(self, message: str) -> None: ...
    async def lose(self) -> None: ...


class FakeRig:
    def __init__(self) -> None:
        self.fake = FakeUnits("h1")
        self.units: UnitManager = self.fake

    def add(self, pool: str, number: int, state: InstanceState) -> None:
        self.fake.add(pool, number, state)

    def run(self, number: int, *, active: int = 0) -> None:
        state = InstanceState.BUSY if active else InstanceState.IDLE
        self.fake.add("browser", number, state, active=active)

    def end_task(self, number: int) -> None:
        self.fake.end_task("browser", number)

    def refuse(self, message: str) -> None:
        self.fake.refuses = message

    async def lose(self) -> None:
        self.fake.away = "no answer"


class HostRig:
    """The real program over stubs of systemctl and of systemd's bus, and a way to it."""

    def __init__(self, systemctl: StubSystemctl, runner: CommandRunner, directory: Path) -> None:
        self.systemctl = systemctl
        self.runner = runner
        self.directory = directory
        self.running: dict[int, RunningInstance] = {}
        self.watched = WatchedUnits("h1", runner, report_max_age_s=15)
        self.units: UnitManager = self.watched

    def add(self, pool: str, number: int, state: InstanceState) -> None:
        words = {
            InstanceState.FAILED: "failed",
            InstanceState.STARTING: "activating",
            InstanceState.STOPPING: "deactivating",
            InstanceState.UNREPORTED: "active",
        }
        self.systemctl.add(f"celery-{pool}@{number}.service", active_state=words[state])

    def run(self, number: int, *, active: int = 0) -> None:
        running = RunningInstance(self.directory, self.systemctl, number, active=active)
        self.running[number] = running

    def end_task(self, number: int) -> None:
        self.running[number].active = 0

    async def report_for_instances(self) -> None:
        """As their reporters do, four times a second."""
        while True:
            for instance in self.running.values():
                instance.write()
            await asyncio.sleep(0.25)

    def refuse(self, message: str) -> None:
        self.systemctl.fail(message)

    async def lose(self) -> None:
        self.systemctl.fail("Connection timed out")


class SshRig(HostRig):
    """The same through an SSH server with a forced command."""

    def __init__(self, systemctl: StubSystemctl, host: SshHost) -> None:
        super().__init__(systemctl, host.runner(), host.directory)
        self.host = host

    async def lose(self) -> None:
        await self.host.close()


@pytest.fixture(params=RIGS)
async def rig(
    request: pytest.FixtureRequest, on_path: StubSystemctl, bus: StubBus, ssh_host: SshHost
) -> AsyncIterator[Rig]:
    if request.param == "fake":
        yield FakeRig()
        return
    ssh_host.knows_watch = request.param == "ssh"
    if request.param == "local":
        program = (sys.executable, "-m", "bench.unitctl", str(ssh_host.status_directory))
        local = LocalRunner(program, timeout_s=5)
        rig = HostRig(on_path, local, ssh_host.directory)
    else:
        rig = SshRig(on_path, ssh_host)
    reporting = asyncio.create_task(rig.report_for_instances())
    async with rig.watched:
        await rig.watched.settled()
        yield rig
    reporting.cancel()
    for instance in rig.running.values():
        instance.close()
    await rig.runner.close()


with_drains = pytest.mark.parametrize("rig", RIGS[:-1], indirect=True)


async def seen(
    units: UnitManager, expected: dict[tuple[str, int], InstanceState]
) -> dict[tuple[str, int], InstanceState]:
    """What is told of the host, as soon as it is that; a change comes in a moment."""
    for _ in range(100):
        if await states(units) == expected:
            break
        await asyncio.sleep(0.05)
    return await states(units)


async def states(units: UnitManager) -> dict[tuple[str, int], InstanceState]:
    report = await units.report()
    assert isinstance(report, HostReport), report
    assert all(instance.host == "h1" for instance in report.instances)
    return {(i.pool, i.number): i.state for i in report.instances}


async def test_a_host_without_instances_reports_none(rig: Rig) -> None:
    assert await states(rig.units) == {}


async def test_the_instances_of_every_pool_are_reported(rig: Rig) -> None:
    rig.add("browser", 2, InstanceState.UNREPORTED)
    rig.add("browser", 12, InstanceState.FAILED)
    rig.add("analysis", 1, InstanceState.STOPPING)
    expected = {
        ("browser", 2): InstanceState.UNREPORTED,
        ("browser", 12): InstanceState.FAILED,
        ("analysis", 1): InstanceState.STOPPING,
    }
    assert await seen(rig.units, expected) == expected


async def test_what_is_started_is_seen_starting(rig: Rig) -> None:
    await rig.units.start("browser", 3)
    assert await states(rig.units) == {("browser", 3): InstanceState.STARTING}


async def test_starting_what_runs_changes_nothing(rig: Rig) -> None:
    rig.add("browser", 3, InstanceState.UNREPORTED)
    await rig.units.start("browser", 3)
    assert await states(rig.units) == {("browser", 3): InstanceState.UNREPORTED}


async def test_a_failed_instance_can_be_started_again(rig: Rig) -> None:
    rig.add("browser", 3, InstanceState.FAILED)
    await rig.units.start("browser", 3)
    assert await states(rig.units) == {("browser", 3): InstanceState.STARTING}


async def test_several_commands_at_once(rig: Rig) -> None:
    await asyncio.gather(*(rig.units.start("browser", number) for number in range(1, 7)))
    assert len(await states(rig.units)) == 6


@pytest.mark.parametrize(
    ("pool", "number"), [("Browser", 1), ("a b", 1), ("browser", 0), ("", 1), ("browser", 100)]
)
async def test_what_can_be_no_instance_is_refused(rig: Rig, pool: str, number: int) -> None:
    with pytest.raises(CommandError, match="refused"):
        await rig.units.start(pool, number)
    assert await states(rig.units) == {}


async def test_a_refusal_comes_with_the_hosts_reason(rig: Rig) -> None:
    rig.refuse("Interactive authentication required.")
    with pytest.raises(CommandError, match=r"^Interactive authentication required\.$"):
        await rig.units.start("browser", 1)


async def test_a_host_that_is_away_is_unknown_and_takes_no_command(rig: Rig) -> None:
    rig.add("browser", 1, InstanceState.UNREPORTED)
    await seen(rig.units, {("browser", 1): InstanceState.UNREPORTED})
    await rig.lose()
    for _ in range(100):
        if isinstance(await rig.units.report(), Unknown):
            break
        await asyncio.sleep(0.05)
    report = await rig.units.report()
    assert isinstance(report, Unknown)
    assert report.reason
    with pytest.raises(CommandError):
        await rig.units.start("browser", 2)
    with pytest.raises(CommandError):
        await rig.units.stop("browser", 1, NEVER)


async def reported(units: UnitManager, number: int) -> Instance:
    report = await units.report()
    assert isinstance(report, HostReport), report
    [instance] = [each for each in report.instances if each.number == number]
    return instance


@with_drains
async def test_what_is_drained_is_told_at_once_and_says_that_it_is_idle(rig: Rig) -> None:
    rig.run(1)
    rig.run(2)
    expected = {("browser", 1): InstanceState.IDLE, ("browser", 2): InstanceState.IDLE}
    assert await seen(rig.units, expected) == expected
    reading = await rig.units.drain("browser", 2)
    assert reading.is_idle
    assert reading.witness is not None
    assert reading.witness.renderers == 0
    assert await states(rig.units) == {**expected, ("browser", 2): InstanceState.DRAINING}
    told = await reported(rig.units, 2)
    assert told.draining is not None
    assert (told.draining.is_idle, told.draining.sequence) == (True, reading.sequence)
    assert (told.pid, told.waits) == (reading.pid, False)


@with_drains
async def test_a_drain_may_be_renewed_and_nothing_changes_but_the_time(rig: Rig) -> None:
    rig.run(1)
    await seen(rig.units, {("browser", 1): InstanceState.IDLE})
    first = await rig.units.drain("browser", 1)
    since = (await reported(rig.units, 1)).draining
    again = await rig.units.drain("browser", 1)
    assert (again.pid, again.is_idle, again.sequence) == (first.pid, True, first.sequence)
    assert again.at >= first.at
    after = (await reported(rig.units, 1)).draining
    assert since is not None
    assert after is not None
    assert after.sequence == since.sequence
    assert after.since == pytest.approx(since.since, abs=0.05)


@with_drains
async def test_one_that_has_a_task_is_not_idle_before_that_has_ended(rig: Rig) -> None:
    rig.run(1, active=1)
    await seen(rig.units, {("browser", 1): InstanceState.BUSY})
    busy = await rig.units.drain("browser", 1)
    assert not busy.is_idle
    told = await reported(rig.units, 1)
    assert (told.state, told.active) == (InstanceState.DRAINING, 1)
    assert told.draining is not None
    assert not told.draining.is_idle
    rig.end_task(1)
    idle = await rig.units.drain("browser", 1)
    assert (idle.is_idle, idle.pid) == (True, busy.pid)
    assert idle.sequence > busy.sequence


@with_drains
async def test_what_is_taken_back_consumes_again_and_its_next_drain_is_another(rig: Rig) -> None:
    rig.run(1)
    await seen(rig.units, {("browser", 1): InstanceState.IDLE})
    first = await rig.units.drain("browser", 1)
    await rig.units.undrain("browser", 1)
    assert await states(rig.units) == {("browser", 1): InstanceState.IDLE}
    await rig.units.undrain("browser", 1)
    assert (await rig.units.drain("browser", 1)).sequence > first.sequence


@with_drains
async def test_what_is_drained_can_be_stopped(rig: Rig) -> None:
    rig.run(1)
    rig.run(2)
    both = {("browser", 1): InstanceState.IDLE, ("browser", 2): InstanceState.IDLE}
    assert await seen(rig.units, both) == both
    reading = await rig.units.drain("browser", 1)
    await rig.units.stop("browser", 1, reading)
    assert await states(rig.units) == {("browser", 2): InstanceState.IDLE}


@with_drains
async def test_a_stop_that_comes_late_meets_no_task(rig: Rig) -> None:
    """Whoever was held up since the proof, and however long."""
    rig.run(1)
    await seen(rig.units, {("browser", 1): InstanceState.IDLE})
    proved = await rig.units.drain("browser", 1)
    await rig.units.undrain("browser", 1)
    with pytest.raises(CommandError, match="not stopped"):
        await rig.units.stop("browser", 1, proved)
    again = await rig.units.drain("browser", 1)
    for other in (proved, replace(again, pid=again.pid + 1), NEVER):
        with pytest.raises(CommandError, match="not stopped"):
            await rig.units.stop("browser", 1, other)
    assert ("browser", 1) in await states(rig.units)
    await rig.units.stop("browser", 1, again)
    assert await states(rig.units) == {}


@with_drains
async def test_one_that_has_a_task_is_not_stopped_whatever_was_proved(rig: Rig) -> None:
    rig.run(1, active=1)
    await seen(rig.units, {("browser", 1): InstanceState.BUSY})
    busy = await rig.units.drain("browser", 1)
    with pytest.raises(CommandError, match="not stopped"):
        await rig.units.stop("browser", 1, busy)
    assert await states(rig.units) == {("browser", 1): InstanceState.DRAINING}


@with_drains
async def test_a_stop_that_systemd_refuses_is_an_error(rig: Rig) -> None:
    rig.run(1)
    await seen(rig.units, {("browser", 1): InstanceState.IDLE})
    reading = await rig.units.drain("browser", 1)
    rig.refuse("Interactive authentication required.")
    with pytest.raises(CommandError, match=r"^Interactive authentication required\.$"):
        await rig.units.stop("browser", 1, reading)


@with_drains
async def test_at_whose_socket_nobody_answers_is_an_error(rig: Rig) -> None:
    with pytest.raises(CommandError, match="does not answer"):
        await rig.units.drain("browser", 7)
    with pytest.raises(CommandError, match="does not answer"):
        await rig.units.undrain("browser", 7)
    with pytest.raises(CommandError, match="does not answer"):
        await rig.units.stop("browser", 7, NEVER)


@pytest.mark.parametrize("rig", RIGS[-1:], indirect=True)
async def test_a_host_of_an_earlier_release_refuses_to_drain(rig: Rig) -> None:
    rig.run(1)
    await seen(rig.units, {("browser", 1): InstanceState.IDLE})
    with pytest.raises(CommandRefusedError, match="refused: 'drain'"):
        await rig.units.drain("browser", 1)
    assert await states(rig.units) == {("browser", 1): InstanceState.IDLE}

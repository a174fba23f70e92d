"""Hosts come and go with config.yaml, and whoever works is let finish."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from swarm.errors import ConfigError
from swarm.scaler.hosts import Hosts
from swarm.scaler.model import Drain, HostReport, InstanceState, Start, Stop, Undrain, Unknown
from swarm.scaler.ports import BrokerSide, UnitManager
from swarm.scaler.reconcile import Reconciler
from swarm.settings import HostSettings
from tests.builders import AT, make_host, make_instance, make_observation, make_settings
from tests.fakes import FakeQueues, FakeUnits, FakeView

H1, H2 = make_host(), make_host(address="10.77.0.12")


class Channels:
    """Those that are open, and whether one more may be."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.refuses: str | None = None

    @asynccontextmanager
    async def channel(self, name: str, host: HostSettings) -> AsyncIterator[UnitManager]:
        if name == self.refuses:
            raise ConfigError.of("scaler.ssh_key", "absent", "a private key")
        self.open.append(name)
        try:
            yield FakeUnits(name)
        finally:
            self.open.remove(name)


@pytest.fixture
def channels() -> Channels:
    return Channels()


@pytest.fixture
async def hosts(channels: Channels) -> AsyncIterator[Hosts[UnitManager]]:
    async with Hosts(channels.channel, silent_for_s=300) as hosts:
        await hosts.take({"h1": H1, "h2": H2})
        yield hosts
    assert channels.open == []


async def test_what_stays_keeps_its_channel(hosts: Hosts[UnitManager], channels: Channels) -> None:
    units = dict(hosts.units)
    larger = H1.model_copy(update={"max_instances": 9})
    await hosts.take({"h1": larger, "h2": H2})
    assert hosts.units == units
    assert hosts.settings == {"h1": larger, "h2": H2}
    assert channels.open == ["h1", "h2"]


@pytest.mark.parametrize("change", [{"address": "10.77.0.13"}, {"port": 2222}, {"user": "other"}])
async def test_a_host_that_moved_gets_a_new_channel(
    hosts: Hosts[UnitManager], channels: Channels, change: dict[str, object]
) -> None:
    before = hosts.units["h2"]
    await hosts.take({"h1": H1, "h2": H2.model_copy(update=change)})
    assert hosts.units["h2"] is not before
    assert sorted(channels.open) == ["h1", "h2"]


async def test_a_host_that_was_taken_out_stays_until_it_is_empty(
    hosts: Hosts[UnitManager], channels: Channels
) -> None:
    await hosts.take({"h1": H1})
    assert hosts.leaving == {"h2"}
    assert not hosts.settings["h2"].serves("browser")
    for state in ("busy", "idle", "starting", "stopping", "unreported", "paused"):
        report = HostReport((make_instance(1, state, host="h2"),))
        assert await hosts.tidy(make_observation(hosts={"h2": report})) == frozenset()
    failed = HostReport((make_instance(1, "failed", host="h2"),))
    assert await hosts.tidy(make_observation(hosts={"h2": failed})) == {"h2"}
    assert list(hosts.settings) == channels.open == ["h1"]


async def test_one_that_is_silent_is_forgotten_when_its_instances_no_longer_count(
    hosts: Hosts[UnitManager],
) -> None:
    await hosts.take({"h1": H1})
    busy = HostReport((make_instance(1, "busy", host="h2"),))
    assert not await hosts.tidy(make_observation(now=1000.0, hosts={"h2": busy}))
    away = {"h2": Unknown("gone")}
    assert not await hosts.tidy(make_observation(now=1300.0, hosts=away))
    assert await hosts.tidy(make_observation(now=1301.0, hosts=away)) == {"h2"}


async def test_one_that_comes_back_is_in_force_again(
    hosts: Hosts[UnitManager], channels: Channels
) -> None:
    units = hosts.units["h2"]
    await hosts.take({"h1": H1})
    await hosts.take({"h1": H1, "h2": H2})
    assert (hosts.leaving, hosts.settings["h2"]) == (frozenset(), H2)
    assert hosts.units["h2"] is units
    assert channels.open == ["h1", "h2"]


@pytest.mark.parametrize("was_leaving", [False, True])
async def test_one_that_has_another_name_now_is_not_there_twice(
    hosts: Hosts[UnitManager], channels: Channels, *, was_leaving: bool
) -> None:
    if was_leaving:
        await hosts.take({"h1": H1})
    await hosts.take({"h1": H1, "vm": H2.model_copy(update={"max_instances": 9})})
    assert hosts.leaving == frozenset()
    assert list(hosts.settings) == list(hosts.units) == channels.open == ["h1", "vm"]


async def test_what_cannot_be_opened_changes_nothing(
    hosts: Hosts[UnitManager], channels: Channels
) -> None:
    channels.refuses = "h4"
    with pytest.raises(ConfigError):
        await hosts.take({"h3": make_host(address="10.77.0.13"), "h4": make_host(address="x")})
    assert hosts.settings == {"h1": H1, "h2": H2}
    assert (hosts.leaving, channels.open) == (frozenset(), ["h1", "h2"])


class World:
    """A reconciler whose host `h2` was taken out, with an instance there, and one on `h1`."""

    def __init__(self, state: str) -> None:
        self.now = 1000.0
        self.queues = FakeQueues({"browser": 0, "analysis": 0})
        self.units = {name: FakeUnits(name, clock=lambda: self.now) for name in ("h1", "h2")}
        for name in self.units:
            self.units[name].add(
                "browser",
                1,
                InstanceState(state),
                active=int(state == "busy"),
                state_for_s=600,
                **({"idle_for_s": 10} if state == "idle" else {}),
            )
        settings = make_settings()
        side = BrokerSide(self.queues, FakeView(self.queues))
        self.reconciler = Reconciler(settings, {"primary": side}, self.units)
        left = settings.hosts["h2"].model_copy(update={"pools": ()})
        without = settings.model_copy(update={"hosts": {**settings.hosts, "h2": left}})
        self.reconciler.change(without, self.units, leaving={"h2"})

    async def turns(self, count: int = 20) -> list[Start | Stop | Drain | Undrain]:
        for _ in range(count):
            self.now += 2
            await self.reconciler.turn(self.now, at=AT)
        return [action for units in self.units.values() for action in units.asked]


async def test_what_is_idle_on_a_host_that_leaves_is_stopped_when_that_is_proved() -> None:
    world = World("idle")
    drain, stop = Drain("h2", "browser", 1), Stop("h2", "browser", 1)
    assert await world.turns(1) == [drain]
    # Asked twice, and then told to stop.
    assert await world.turns() == [drain, drain, stop]


async def test_who_has_a_task_there_drains_and_is_stopped_when_it_is_done() -> None:
    world = World("busy")
    asked = await world.turns(200)
    # Again and again, lest the drain ends.
    assert set(asked) == {Drain("h2", "browser", 1)}
    assert len(asked) == 400 // 20
    world.units["h2"].end_task("browser", 1)
    world.queues.lengths["browser"] = 0
    assert (await world.turns())[-1] == Stop("h2", "browser", 1)


@pytest.mark.parametrize("state", ["starting", "unreported", "stopping"])
async def test_nothing_else_is_stopped_there(state: str) -> None:
    actions = await World(state).turns(200)
    assert all(isinstance(each, Start) for each in actions)


async def test_nothing_is_started_there() -> None:
    world = World("busy")
    world.queues.lengths["browser"] = 500
    actions = await world.turns(200)
    assert {each.host for each in actions if isinstance(each, Start)} == {"h1"}


@pytest.mark.parametrize("length", [None, 500])
async def test_it_is_not_stopped_while_it_is_wanted_or_nobody_knows(length: int | None) -> None:
    world = World("idle")
    world.queues.lengths.pop("browser")
    if length is not None:
        world.queues.lengths["browser"] = length
    actions = await world.turns()
    assert not any(isinstance(action, Stop) for action in actions)


async def test_a_host_that_was_forgotten_is_not_missed() -> None:
    world = World("busy")
    await world.turns(2)
    settings = make_settings()
    only = settings.model_copy(update={"hosts": {"h1": settings.hosts["h1"]}})
    world.reconciler.change(only, {"h1": world.units["h1"]})
    outcome = await world.reconciler.turn(world.now + 2, at=AT)
    assert outcome.observation.hosts.keys() == {"h1"}
    assert outcome.observation.unseen == ()

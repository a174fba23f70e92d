"""What a scaler that only looks has its hosts do: nothing."""

from __future__ import annotations

from swarm.scaler.adapters.dry_run import DryRunUnits
from swarm.scaler.model import InstanceState
from tests.fakes import FakeUnits


async def test_nothing_reaches_the_host_and_nothing_is_proved() -> None:
    units = FakeUnits("h1")
    units.add("browser", 1, InstanceState.IDLE)
    dry = DryRunUnits(units)
    await dry.start("browser", 2)
    reading = await dry.drain("browser", 1)
    await dry.undrain("browser", 1)
    await dry.stop("browser", 1, reading)
    assert units.asked == []
    assert await dry.report() == await units.report()
    assert not reading.is_idle

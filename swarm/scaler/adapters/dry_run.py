"""A host on which nothing is started, drained or stopped, however much it is asked for."""

from __future__ import annotations

from swarm.scaler.model import DrainReading, HostReport, Unknown
from swarm.scaler.ports import UnitManager


class DryRunUnits:
    """Sees what another `UnitManager` sees, and has it do nothing."""

    def __init__(self, units: UnitManager) -> None:
        self._units = units

    async def report(self) -> HostReport | Unknown:
        return await self._units.report()

    async def start(self, pool: str, number: int) -> None:
        """Accept, and leave it at that."""

    async def drain(self, pool: str, number: int) -> DrainReading:  # noqa: ARG002
        """Accept, and tell nothing that could prove it idle."""
        return DrainReading(at=0.0, pid=0, is_idle=False, sequence=0, witness=None)

    async def undrain(self, pool: str, number: int) -> None:
        """Accept, and leave it at that."""

    async def stop(self, pool: str, number: int, proved: DrainReading) -> None:
        """Accept, and leave it at that."""

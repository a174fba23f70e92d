"""The hosts of config.yaml and the channels to them.

    added ──> in force ──> taken out of config.yaml ──> empty, or silent for long ──> forgotten

Of one that was taken out nothing is stopped but what is idle, and nothing is started there. One
that has another name now is forgotten under the former at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Generic, Self, TypeVar

from swarm.scaler.model import HostReport, InstanceState, Observation
from swarm.scaler.ports import UnitManager
from swarm.settings import HostSettings

Units = TypeVar("Units", bound=UnitManager)


class Hosts(Generic[Units]):
    """Closes its channels when it is left."""

    def __init__(
        self,
        open_channel: Callable[[str, HostSettings], AbstractAsyncContextManager[Units]],
        *,
        silent_for_s: float,
    ) -> None:
        """One that was taken out is forgotten when nothing was heard of it for `silent_for_s`.

        `open_channel` may raise `ConfigError`.
        """
        self._open = open_channel
        self._silent_for_s = silent_for_s
        self._channels: dict[str, AsyncExitStack] = {}
        self._leaving: dict[str, float | None] = {}
        self.settings: dict[str, HostSettings] = {}
        """Those that are leaving serve no pool."""
        self.units: dict[str, Units] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for name in list(self._channels):
            await self._forget(name)

    @property
    def leaving(self) -> frozenset[str]:
        """Those that were taken out and are not empty yet."""
        return frozenset(self._leaving)

    async def take(self, hosts: Mapping[str, HostSettings]) -> None:
        """Have these in force from now on.

        Raises:
            ConfigError: a channel cannot be opened; everything is as it was.
        """
        async with AsyncExitStack() as opened:
            channels, units = {}, {}
            for name, host in hosts.items():
                if name not in self.settings or _way(self.settings[name]) != _way(host):
                    channels[name] = await opened.enter_async_context(AsyncExitStack())
                    units[name] = await channels[name].enter_async_context(self._open(name, host))
            opened.pop_all()
        for name in channels.keys() & self._channels.keys():
            await self._channels[name].aclose()
        self._channels |= channels
        self.units |= units
        places = {host.place for host in hosts.values()}
        for name in self.settings.keys() - hosts.keys():
            if self.settings[name].place in places:
                # It has another name now, under which what runs there would count again.
                await self._forget(name)
                continue
            self._leaving.setdefault(name)
            self.settings[name] = self.settings[name].model_copy(update={"pools": ()})
        for name in hosts:
            self._leaving.pop(name, None)
        self.settings |= hosts

    async def tidy(self, observation: Observation) -> frozenset[str]:
        """Forget those that have left; which they are."""
        gone = frozenset(name for name in self._leaving if self._has_left(name, observation))
        for name in gone:
            await self._forget(name)
        return gone

    def _has_left(self, name: str, observation: Observation) -> bool:
        report = observation.hosts[name]
        if isinstance(report, HostReport):
            self._leaving[name] = observation.now
            return all(each.state is InstanceState.FAILED for each in report.instances)
        heard_at = self._leaving[name]
        if heard_at is None:
            heard_at = self._leaving[name] = observation.now
        return observation.now - heard_at > self._silent_for_s

    async def _forget(self, name: str) -> None:
        self._leaving.pop(name, None)
        del self.settings[name], self.units[name]
        await self._channels.pop(name).aclose()


def _way(host: HostSettings) -> tuple[object, ...]:
    """What a channel is opened with."""
    return (host.address, host.port, host.user)

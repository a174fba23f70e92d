"""A scaler's turns over fakes: real policy and placement on a clock that a test turns."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from swarm.scaler.model import Action, Instance, InstanceState, Outcome, Stop
from swarm.scaler.ports import BrokerSide
from swarm.scaler.reconcile import Reconciler
from swarm.settings import Settings
from tests.builders import AT, UNHURRIED, make_settings
from tests.fakes import FakeQueues, FakeUnits, FakeView

#: Few starts at a time, and few for many tasks.
SLOW = {**UNHURRIED, "host_starts_at_once": 4, "scale_up_at_least": 4}


class World:
    """A reconciler with its fakes; `turn` advances the clock by two seconds."""

    def __init__(self, settings: Settings | None = None, **lengths: int) -> None:
        self.settings = settings or make_settings(scaler=SLOW)
        self.queues = FakeQueues({"browser": 0, "analysis": 0, **lengths})
        self.view = FakeView(self.queues)
        self.hosts = {name: FakeUnits(name, clock=lambda: self.now) for name in self.settings.hosts}
        self.now = 1000.0
        self.restart()

    def restart(self) -> None:
        self.reconciler = Reconciler(
            self.settings, {"primary": BrokerSide(self.queues, self.view)}, self.hosts
        )

    def idle(self, host: str, number: int, **fields: Any) -> None:
        fields = {"idle_for_s": 600, "state_for_s": 600, **fields}
        self.hosts[host].add("browser", number, InstanceState.IDLE, **fields)

    async def turn(self, after_s: float = 2.0, *, at: datetime = AT) -> Outcome:
        self.now += after_s
        return await self.reconciler.turn(self.now, at=at)

    def actions(self, outcome: Outcome) -> list[Action]:
        return [result.action for result in outcome.results]

    @property
    def draining(self) -> list[Instance]:
        return [
            each
            for host in self.hosts.values()
            for each in host.instances.values()
            if each.state is InstanceState.DRAINING
        ]

    @property
    def asked(self) -> list[Action]:
        """All that was asked of the hosts so far."""
        return [action for host in self.hosts.values() for action in host.asked]

    @property
    def stops(self) -> list[Stop]:
        return [a for host in self.hosts.values() for a in host.asked if isinstance(a, Stop)]

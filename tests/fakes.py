"""The scaler's world in memory: queues and hosts that behave as the real ones do.

The contract tests hold both to the same behaviour.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from swarm.delivery.survey import Attention
from swarm.scaler.model import (
    BrokerCondition,
    HostReport,
    Instance,
    InstanceState,
    Start,
    Stop,
    Unknown,
)
from swarm.scaler.orders import Order, with_order, without
from swarm.scaler.ports import BrokerSide, CommandError
from tests.builders import NOW, dated


@dataclass
class FakeQueues:
    """A `QueueSource`: what is in `lengths`, or nothing at all while `away`."""

    lengths: dict[str, int] = field(default_factory=dict)
    away: str | None = None
    asked: int = 0

    async def waiting(self, queues: Sequence[str]) -> Mapping[str, int | Unknown]:
        self.asked += 1
        if self.away is not None:
            return dict.fromkeys(queues, Unknown(self.away))
        return {
            queue: self.lengths.get(queue, Unknown(f"no answer about queue {queue}"))
            for queue in queues
        }


@dataclass
class FakeView:
    """A `BrokerView` of the same queues, whose bells nobody hears unless told so."""

    queues: FakeQueues
    silent: set[str] = field(default_factory=set)
    piles: dict[str, float] = field(default_factory=dict)
    away: str | None = None
    down_for_s: float | None = None
    """While it is away; None for one that is merely not understood."""
    attention: Attention = field(default_factory=Attention)
    ages: list[float] = field(default_factory=list)
    """How old each answer might have been."""
    stretch: float = 1.0

    def condition(self) -> BrokerCondition:
        if self.down_for_s is None:
            return BrokerCondition(reached=self.away is None)
        return BrokerCondition(self.down_for_s, self.away or "")

    def attend(self, attention: Attention) -> None:
        self.attention = attention

    def quiet(self) -> frozenset[str]:
        return frozenset(self.silent) & self.attention.deserted

    def piled(self) -> Mapping[str, float]:
        return self.piles

    async def waiting(
        self, queues: Sequence[str], *, max_age_s: float
    ) -> Mapping[str, int | Unknown]:
        self.ages.append(max_age_s)
        if self.away is not None:
            return dict.fromkeys(queues, Unknown(self.away))
        return {
            queue: self.queues.lengths.get(queue, Unknown(f"no answer about queue {queue}"))
            for queue in queues
        }


class FakeBroker:
    """One broker with queue `browser`, as a Flower and a view show it."""

    def __init__(self) -> None:
        self.queues = FakeQueues({"browser": 0})
        self.view = FakeView(self.queues)
        self.side = BrokerSide(self.queues, self.view)

    def lose(self, *, down_for_s: float = 0.0) -> None:
        self.view.away = self.queues.away = "Connection refused"
        self.view.down_for_s = down_for_s

    def find(self) -> None:
        self.view.away = self.queues.away = self.view.down_for_s = None


@dataclass
class FakeUnits:
    """A `UnitManager`: starts and stops at once what it is asked to."""

    host: str
    instances: dict[tuple[str, int], Instance] = field(default_factory=dict)
    away: str | None = None
    refuses: str | None = None
    """Says no to every start and stop."""
    asked: list[Start | Stop] = field(default_factory=list)
    clock: Callable[[], float] = lambda: NOW

    async def report(self) -> HostReport | Unknown:
        if self.away is not None:
            return Unknown(self.away)
        return HostReport(tuple(self.instances[key] for key in sorted(self.instances)))

    async def start(self, pool: str, number: int) -> None:
        self.asked.append(Start(self.host, pool, number))
        self._check(pool, number)
        known = self.instances.get((pool, number))
        if known is None or known.state is InstanceState.FAILED:
            self.add(pool, number, InstanceState.STARTING)

    async def stop(self, pool: str, number: int) -> None:
        self.asked.append(Stop(self.host, pool, number))
        self._check(pool, number)
        self.instances.pop((pool, number), None)

    def add(self, pool: str, number: int, state: InstanceState, **fields: Any) -> None:
        now = self.clock()
        instance = Instance(pool, number, self.host, state, state_since=now, pid=1000 + number)
        self.instances[pool, number] = replace(instance, **dated(fields, now))

    def _check(self, pool: str, number: int) -> None:
        if self.away is not None or self.refuses is not None:
            raise CommandError(self.away or self.refuses or "")
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,31}", pool) or not 1 <= number <= 99:
            raise CommandError(f"refused: start {pool} {number}")


@dataclass
class FakeOrders:
    """An `OrderKeeper` whose orders never end."""

    problem: str | None = None
    given: tuple[Order, ...] = ()

    def standing(self) -> tuple[Order, ...]:
        return self.given

    def give(self, order: Order) -> None:
        self.given = with_order(self.given, order)

    def withdraw(self, *keys: tuple[object, ...]) -> tuple[Order, ...]:
        withdrawn = tuple(order for order in self.given if order.key in keys)
        self.given = without(self.given, *keys)
        return withdrawn

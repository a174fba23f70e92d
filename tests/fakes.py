"""The scaler's world in memory: queues and hosts that behave as the real ones do.

The contract tests hold both to the same behaviour.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from swarm.delivery.survey import Attention
from swarm.scaler.model import (
    BrokerCondition,
    Drain,
    Draining,
    DrainReading,
    HostReport,
    Instance,
    InstanceState,
    Start,
    Stop,
    Undrain,
    Unknown,
)
from swarm.scaler.orders import Order, with_order, without
from swarm.scaler.ports import BrokerSide, CommandError
from swarm.witness import Witness
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
    mute: set[tuple[str, int]] = field(default_factory=set)
    """Instances that cannot be drained: nobody answers at their sockets."""
    witness: Witness | None = field(default_factory=lambda: Witness(4, 0, 1.0))
    shows: dict[tuple[str, int], Instance] = field(default_factory=dict)
    """What is told of instances that are otherwise by now."""
    asked: list[Start | Stop | Drain | Undrain] = field(default_factory=list)
    clock: Callable[[], float] = lambda: NOW
    _sequences: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def report(self) -> HostReport | Unknown:
        if self.away is not None:
            return Unknown(self.away)
        told = {**self.instances, **self.shows}
        return HostReport(tuple(told[key] for key in sorted(told)))

    async def start(self, pool: str, number: int) -> None:
        self.asked.append(Start(self.host, pool, number))
        self._check(pool, number)
        known = self.instances.get((pool, number))
        if known is None or known.state is InstanceState.FAILED:
            self.add(pool, number, InstanceState.STARTING)

    async def stop(self, pool: str, number: int, proved: DrainReading) -> None:
        self.asked.append(Stop(self.host, pool, number))
        instance = self._talk_to(pool, number)
        draining = instance.draining
        if draining is None or not draining.is_idle:
            raise CommandError("not stopped: it consumes")
        if (instance.pid, draining.sequence) != (proved.pid, proved.sequence):
            raise CommandError("not stopped: it has consumed since")
        del self.instances[pool, number]

    async def drain(self, pool: str, number: int) -> DrainReading:
        self.asked.append(Drain(self.host, pool, number))
        instance = self._talk_to(pool, number)
        draining = instance.draining or Draining(
            is_idle=False, sequence=self._count(pool, number), since=self.clock()
        )
        if not (draining.is_idle or instance.active or instance.reserved):
            sequence = self._count(pool, number)
            draining = replace(draining, is_idle=True, sequence=sequence)
        self.instances[pool, number] = replace(
            instance,
            state=InstanceState.DRAINING,
            draining=draining,
            idle_since=None,
            waits=False,
        )
        return DrainReading(
            self.clock(), instance.pid, draining.is_idle, draining.sequence, self.witness
        )

    async def undrain(self, pool: str, number: int) -> None:
        self.asked.append(Undrain(self.host, pool, number))
        instance = self._talk_to(pool, number)
        if instance.draining is None:
            return
        self._count(pool, number)
        is_idle = not (instance.active or instance.reserved)
        self.instances[pool, number] = replace(
            instance,
            state=InstanceState.IDLE if is_idle else InstanceState.BUSY,
            draining=None,
            idle_since=self.clock() if is_idle else None,
        )

    def end_task(self, pool: str, number: int) -> None:
        """The last one of an instance that drains."""
        self.shows.pop((pool, number), None)
        instance = self.instances[pool, number]
        assert instance.draining is not None
        sequence = self._count(pool, number)
        draining = replace(instance.draining, is_idle=True, sequence=sequence)
        self.instances[pool, number] = replace(
            instance, active=0, tasks_ended=instance.tasks_ended + 1, draining=draining
        )

    def add(self, pool: str, number: int, state: InstanceState, **fields: Any) -> None:
        now = self.clock()
        instance = Instance(pool, number, self.host, state, state_since=now, pid=1000 + number)
        self.instances[pool, number] = replace(instance, **dated(fields, now))

    def _count(self, pool: str, number: int) -> int:
        """The number of the next state of this instance's drain; it consumes under 1."""
        self._sequences[pool, number] += 1
        return 1 + self._sequences[pool, number]

    def _talk_to(self, pool: str, number: int) -> Instance:
        self._check(pool, number)
        instance = self.instances.get((pool, number))
        if instance is None or (pool, number) in self.mute:
            raise CommandError(f"{pool}-{number} does not answer: No such file or directory")
        return instance

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

"""One turn: observe, decide, act. It never sleeps and keeps no clock of its own.

The turn is level-triggered: what systemd shows is the truth, so a restart at any point adopts
what it finds. Nothing that fails here fails a turn: it becomes Unknown or an action's error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar

from swarm.brokers import BrokerName
from swarm.scaler import drains, failing, placement, policy
from swarm.scaler.backlog import Backlog
from swarm.scaler.inputs import Tallies
from swarm.scaler.limits import Orders, effective
from swarm.scaler.model import (
    Action,
    ActionResult,
    BrokerCondition,
    Decision,
    Drain,
    DrainReading,
    HostReport,
    Instance,
    InstanceKey,
    InstanceState,
    Limits,
    Observation,
    Outcome,
    PoolMemory,
    Renew,
    Start,
    Stop,
    Undrain,
    Unknown,
)
from swarm.scaler.ports import BrokerSide, CommandError, UnitManager
from swarm.scaler.reach import Reach
from swarm.settings import PoolSettings, Settings

_Who = TypeVar("_Who")

#: Nobody wants anything but what config.yaml says.
NO_ORDERS = Orders()


class Reconciler:
    """Holds what a turn needs of the ones before it."""

    def __init__(
        self,
        settings: Settings,
        brokers: Mapping[BrokerName, BrokerSide],
        units: Mapping[str, UnitManager],
    ) -> None:
        """`brokers` has each that a pool serves, `units` each host."""
        self._settings = settings
        self._brokers = brokers
        self._units = units
        self._backlogs = {
            name: Backlog(
                settings.pools_on(name),
                settings.scaler,
                side,
                elsewhere=settings.pools.keys() - settings.pools_on(name).keys(),
            )
            for name, side in brokers.items()
        }
        self._reach = Reach(settings.pools)
        self._memories = {name: PoolMemory() for name in settings.pools}
        self._tallies = Tallies()
        self._proofs: dict[InstanceKey, drains.Proof] = {}
        self._readings: Mapping[InstanceKey, DrainReading] = {}
        self._asked_at = 0.0
        # Drains that an instance refused, starts of a pool that a host did, and when each did.
        self._refused: dict[InstanceKey, float] = {}
        self._no_starts: dict[tuple[str, str], float] = {}
        self._last_seen: dict[str, tuple[float, tuple[Instance, ...]]] = {}
        self._leaving: Collection[str] = ()

    def change(
        self,
        settings: Settings,
        units: Mapping[str, UnitManager],
        *,
        leaving: Collection[str] = (),
    ) -> None:
        """Go on with other hosts; those that are `leaving` are still among them.

        Nothing but `hosts` may differ from the settings so far.
        """
        self._settings = settings
        self._units = units
        self._leaving = leaving
        self._last_seen = {name: seen for name, seen in self._last_seen.items() if name in units}

    async def turn(self, now: float, *, at: datetime, orders: Orders = NO_ORDERS) -> Outcome:
        """Observe everything at once, decide for every pool, carry out the plan.

        `now` is of `swarm.scaler.clock`, `at` the time that schedules go by.

        Raises nothing that a queue source or a host could cause.
        """
        observation = await self._observe(now, orders)
        self._proofs = drains.gather(
            observation, self._proofs, self._readings, asked_at=self._asked_at
        )
        self._tallies.count(observation.hosts, observation.drained)
        failures = failing.failures(self._settings, observation)
        refused = self._refused = _lately(self._refused, now)
        self._no_starts = _lately(self._no_starts, now)
        decisions = {}
        for name, pool in self._settings.pools.items():
            limits = effective(pool, at, orders.overrides.get(name, ()))
            decisions[name] = self._decide(name, pool, observation, limits, refused, failures)
        plan = placement.plan(
            decisions,
            self._settings,
            observation,
            self._proofs,
            leaving=self._leaving,
            refused=refused,
            no_starts=self._no_starts,
        )
        results = await asyncio.gather(*(self._act(action) for action in plan.actions))
        self._remember_starts(now, plan.actions)
        self._remember_answers(now, results)
        return Outcome(
            observation,
            decisions,
            tuple(results),
            plan.notes,
            dict(plan.overdue),
            due_at=now
            if any(map(policy.is_surplus_in_the_next_turn, decisions.values()))
            else drains.due_at(self._proofs, self._readings, now=now),
        )

    def _decide(
        self,
        name: str,
        pool: PoolSettings,
        observation: Observation,
        limits: Limits,
        refused: Collection[InstanceKey],
        failures: Mapping[tuple[str, str], failing.Failures],
    ) -> Decision:
        scaler = self._settings.scaler
        inputs = self._tallies.inputs(
            name,
            pool,
            scaler,
            observation,
            drainable=placement.drainable(name, observation, refused),
            suspects=failing.suspects(failures, name),
            breaker=failing.breaker_is_open(failures, name, self._settings, observation),
        )
        decision, self._memories[name] = policy.decide(
            name, pool, scaler, inputs, limits, self._memories[name]
        )
        return decision

    async def _observe(self, now: float, orders: Orders) -> Observation:
        reports = {name: await units.report() for name, units in self._units.items()}
        conditions: dict[str, BrokerCondition] = {
            name: side.view.condition() for name, side in self._brokers.items()
        }
        hosts = self._reach.seen(now, reports, conditions)
        down = policy.confirmed_down(conditions, self._settings.brokers.confirm_down_s)
        return Observation(
            now,
            waiting=await self._waiting(now, hosts, conditions, down),
            hosts=hosts,
            unseen=self._unseen(now, hosts),
            brokers=conditions,
            confirmed_down=down,
            pinned=orders.pinned,
            drained=orders.drained,
        )

    async def _waiting(
        self,
        now: float,
        hosts: Mapping[str, HostReport | Unknown],
        conditions: Mapping[str, BrokerCondition],
        confirmed_down: Collection[str],
    ) -> Mapping[str, int | Unknown]:
        """How much waits in each pool; the brokers are asked at once."""
        waiting: dict[str, int | Unknown] = {}
        kept = {
            name: memory.keep for name, memory in self._memories.items() if memory.keep is not None
        }
        asked = []
        for name, backlog in self._backlogs.items():
            if name in confirmed_down:
                waiting |= backlog.given_up(now, hosts, conditions[name].describe(name))
            else:
                asked.append(backlog.waiting(now, hosts, kept))
        for answer in await asyncio.gather(*asked):
            waiting |= answer
        return waiting

    def _unseen(
        self, now: float, hosts: Mapping[str, HostReport | Unknown]
    ) -> tuple[Instance, ...]:
        for name, report in hosts.items():
            if isinstance(report, HostReport):
                self._last_seen[name] = (now, report.instances)
        return tuple(
            instance
            for name, (seen_at, instances) in self._last_seen.items()
            if isinstance(hosts[name], Unknown)
            and now - seen_at <= self._settings.scaler.unseen_counts_s
            for instance in instances
            if instance.state is not InstanceState.FAILED
        )

    def _remember_starts(self, now: float, actions: Iterable[Action]) -> None:
        """A host may be lost before it shows what was started; a failed start may have worked."""
        for action in actions:
            if isinstance(action, Start):
                started = Instance(
                    action.pool, action.number, action.host, InstanceState.STARTING, state_since=now
                )
                _, instances = self._last_seen[action.host]
                self._last_seen[action.host] = (now, (*instances, started))

    def _remember_answers(self, now: float, results: Sequence[ActionResult]) -> None:
        """For the next turns; who refused to drain, or to start one, is left alone for a while."""
        self._asked_at = now
        self._readings = {
            result.action.key: result.reading for result in results if result.reading is not None
        }
        for action in (result.action for result in results):
            if isinstance(action, Undrain):
                # Its status file may still say that it drains when it has a task already.
                self._proofs.pop(action.key, None)
        for action in (result.action for result in results if result.error is not None):
            if isinstance(action, Drain):
                self._refused[action.key] = now
            elif isinstance(action, Start):
                self._no_starts[action.host, action.pool] = now

    async def _act(self, action: Action) -> ActionResult:
        units, where = self._units[action.host], (action.pool, action.number)
        reading = None
        try:
            match action:
                case Start():
                    await units.start(*where)
                case Drain() | Renew():
                    reading = await units.drain(*where)
                case Undrain():
                    await units.undrain(*where)
                case Stop():
                    await units.stop(*where, self._proofs[action.key].last)
        except CommandError as exc:
            return ActionResult(action, error=str(exc))
        return ActionResult(action, reading=reading)


def _lately(refusals: Mapping[_Who, float], now: float) -> dict[_Who, float]:
    """Those that are not forgotten yet."""
    return {who: at for who, at in refusals.items() if now - at < drains.REFUSAL_S}

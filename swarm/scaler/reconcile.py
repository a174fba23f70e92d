"""One turn: observe, decide, act. It never sleeps and keeps no clock of its own.

The turn is level-triggered: what systemd shows is the truth, so a restart at any point adopts
what it finds. Nothing that fails here fails a turn: it becomes Unknown or an action's error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from swarm.scaler import asking, placement, policy
from swarm.scaler.asking import Source
from swarm.scaler.model import (
    Action,
    ActionResult,
    HostReport,
    Instance,
    InstanceState,
    Observation,
    Outcome,
    PoolMemory,
    Start,
    Unknown,
)
from swarm.scaler.ports import BrokerView, CommandError, QueueSource, UnitManager
from swarm.settings import Settings


class Reconciler:
    """Holds what a turn needs of the ones before it."""

    def __init__(
        self,
        settings: Settings,
        queues: QueueSource,
        broker: BrokerView,
        units: Mapping[str, UnitManager],
    ) -> None:
        self._settings = settings
        self._queues = queues
        self._broker = broker
        self._units = units
        self._memories = {name: PoolMemory() for name in settings.pools}
        self._proofs: placement.Proofs = {}
        self._last_seen: dict[str, tuple[float, tuple[Instance, ...]]] = {}
        # When each pool last had work, or was sure to have none.
        self._active_at: dict[str, float] = {}
        # Piles that turned out to be none, by queue and the time of the survey that saw them.
        self._cleared: dict[str, float] = {}

    async def turn(self, now: float) -> Outcome:
        """Observe everything at once, decide for every pool, carry out the plan.

        Raises nothing that a queue source or a host could cause.
        """
        observation = await self._observe(now)
        scaler = self._settings.scaler
        self._proofs = placement.gather_proofs(observation, self._proofs)
        decisions = {}
        for name, pool in self._settings.pools.items():
            stoppable = placement.proved_idle(name, scaler, observation, self._proofs)
            decisions[name], self._memories[name] = policy.decide(
                name, pool, scaler, observation, self._memories[name], stoppable=len(stoppable)
            )
        plan = placement.plan(decisions, self._settings.hosts, scaler, observation, self._proofs)
        results = await asyncio.gather(*(self._act(action) for action in plan.actions))
        self._remember_starts(now, plan.actions)
        return Outcome(observation, decisions, tuple(results), plan.notes)

    async def _observe(self, now: float) -> Observation:
        reports = await asyncio.gather(*(units.report() for units in self._units.values()))
        hosts = dict(zip(self._units, reports, strict=True))
        lengths = await self._lengths(now, hosts)
        return Observation(
            now,
            waiting={
                name: _total(pool.queues, lengths) for name, pool in self._settings.pools.items()
            },
            hosts=hosts,
            unseen=self._unseen(now, hosts),
        )

    async def _lengths(
        self, now: float, hosts: Mapping[str, HostReport | Unknown]
    ) -> Mapping[str, int | Unknown]:
        """How much waits in each queue, from whoever knows it at the least cost."""
        pools = self._settings.pools
        self._broker.attend(asking.attention(pools, hosts))
        piled = self._broker.piled()
        sources = asking.choose(
            pools,
            self._settings.scaler,
            asking.reported(hosts),
            quiet=self._broker.quiet(),
            doubted=[queue for queue, at in piled.items() if self._cleared.get(queue) != at],
        )
        asked = {
            source: [
                q for name, pool in pools.items() if sources[name] is source for q in pool.queues
            ]
            for source in Source
        }
        lengths: dict[str, int | Unknown] = dict.fromkeys(asked[Source.NOBODY], 0)
        if asked[Source.FLOWER]:
            lengths |= await self._queues.waiting(asked[Source.FLOWER])
        if asked[Source.BROKER]:
            lengths |= await self._ask_broker(now, asked[Source.BROKER], sources)
        for name, pool in pools.items():
            total = _total(pool.queues, lengths)
            if sources[name] is not Source.BROKER or (isinstance(total, int) and total > 0):
                self._active_at[name] = now
        for queue in asked[Source.FLOWER]:
            if lengths.get(queue) == 0 and queue in piled:
                self._cleared[queue] = piled[queue]
        return lengths

    async def _ask_broker(
        self, now: float, queues: Sequence[str], sources: Mapping[str, Source]
    ) -> Mapping[str, int | Unknown]:
        at_most = self._settings.scaler.zero_check_s
        ages = (
            asking.max_age_s(now, active_at=self._active_at.setdefault(name, now), at_most=at_most)
            for name, source in sources.items()
            if source is Source.BROKER
        )
        return await self._broker.waiting(queues, max_age_s=min(ages))

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
                started = Instance(action.pool, action.number, action.host, InstanceState.STARTING)
                _, instances = self._last_seen[action.host]
                self._last_seen[action.host] = (now, (*instances, started))

    async def _act(self, action: Action) -> ActionResult:
        units = self._units[action.host]
        verb = units.start if isinstance(action, Start) else units.stop
        try:
            await verb(action.pool, action.number)
        except CommandError as exc:
            return ActionResult(action, error=str(exc))
        return ActionResult(action)


def _total(queues: Sequence[str], lengths: Mapping[str, int | Unknown]) -> int | Unknown:
    """The pool's backlog; unknown when the length of any of its queues is."""
    total = 0
    for queue in queues:
        length = lengths.get(queue, Unknown(f"no answer about queue {queue}"))
        if isinstance(length, Unknown):
            return length
        total += length
    return total

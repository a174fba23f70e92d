"""Which instance on which host. Pure: the same decision and picture give the same plan.

Starts go where most room is left. What is too many is drained, and stopped when that has proved
that nothing is lost (`drains`); a need that comes first takes it back before anything is started.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from swarm.scaler import drains
from swarm.scaler.drains import Proofs
from swarm.scaler.giving_way import Room
from swarm.scaler.model import (
    Action,
    Decision,
    Direction,
    Drain,
    Instance,
    InstanceKey,
    InstanceState,
    Observation,
    Renew,
    Stop,
    Undrain,
    Unknown,
)
from swarm.scaler.places import Places
from swarm.settings import Settings

#: What can be drained on a host that is to become empty, whether it is needed or not.
_LEAVES = {InstanceState.IDLE, InstanceState.BUSY, InstanceState.PAUSED}


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions, and why some that were asked for are missing."""

    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()
    overdue: tuple[tuple[InstanceKey, str], ...] = ()
    """Instances that drain for too long, and why they go on doing so."""


def drainable(pool: str, observation: Observation, refused: Collection[InstanceKey] = ()) -> int:
    """How many of the pool's instances could be drained because they are too many."""
    return sum(
        drains.is_idle(each)
        and each.key not in refused
        and each.key not in observation.pinned
        and each.host not in observation.drained
        for each in observation.instances(pool)
    )


def plan(
    decisions: Mapping[str, Decision],
    settings: Settings,
    observation: Observation,
    proofs: Proofs,
    *,
    leaving: Collection[str] = (),
    refused: Collection[InstanceKey] = (),
    no_starts: Collection[tuple[str, str]] = (),
) -> Plan:
    """The actions of one turn, over all pools, within every host's limits.

    On hosts that are `leaving` everything is drained, unless its pool needs more instances or it is
    not known whether it does; on those that people have drained, whatever is needed. Nothing new is
    asked of instances that `refused` to drain lately. Hosts and pools of `no_starts`, where a start
    was refused lately, are the last choice for others.
    """
    places = Places(settings, observation, no_starts)
    turn = _Turn(settings, observation, proofs, places, leaving, {*refused, *observation.pinned})
    # What the fallback holds is done first: it was accepted while the primary was away.
    for decision in sorted(
        decisions.values(), key=lambda each: settings.pools[each.pool].broker != "fallback"
    ):
        turn.scale(decision)
    turn.give_way()
    return Plan(tuple(turn.actions), tuple(turn.notes), tuple(turn.overdue()))


class _Turn:
    """A plan in the making."""

    def __init__(
        self,
        settings: Settings,
        observation: Observation,
        proofs: Proofs,
        places: Places,
        leaving: Collection[str],
        kept: Collection[InstanceKey],
    ) -> None:
        """Of those that are `kept` none is drained."""
        self._settings = settings
        self._observation = observation
        self._proofs = proofs
        self._leaving = {*leaving, *observation.drained}
        self._kept = kept
        self._places = places
        self._draining: dict[str, list[Instance]] = {}
        for instance in drains.draining(observation):
            if instance.pool in settings.pools:
                self._draining.setdefault(instance.pool, []).append(instance)
        self._all_answer = not any(
            isinstance(report, Unknown) for report in observation.hosts.values()
        )
        self._short: dict[str, int] = {}
        self._stay: set[str] = set()
        """Pools of which nothing may be stopped."""
        self._back: set[InstanceKey] = set()
        """Those that are taken back."""
        self.actions: list[Action] = []
        self.notes: list[str] = []

    def scale(self, decision: Decision) -> None:
        """Carry the decision out, as far as room and proofs allow."""
        pool, direction = decision.pool, decision.direction
        drained = self._observation.drained
        if decision.basis is not None and decision.basis.limits.no_stops is not None:
            self._stay.add(pool)
        missing = decision.desired - decision.running
        own = self._draining.get(pool, [])
        back = self._taken_back(decision, own)
        self.actions += [Undrain(*each.key) for each in back]
        self._back |= {each.key for each in back}
        going = [each for each in own if each.key not in self._back]
        ordered_out = [each for each in going if each.host in drained]
        leavers = [each for each in going if each.host in self._leaving - drained]
        others = [each for each in going if each.host not in self._leaving]
        if direction is Direction.UP:
            self._start(decision, missing - len(back), beside=len(going))
            # More were drained than are needed again: they stay so, but nothing is stopped now.
            self.actions += self._renewed(others)
        elif self._is_known(pool):
            self.actions += self._stopped_or_renewed(others)
            if direction is Direction.DOWN:
                self._drain(self._surplus(pool)[:-missing])
        if isinstance(self._observation.waiting.get(pool), int):
            self.actions += self._stopped_or_renewed(leavers)
            if direction is not Direction.UP and pool not in self._stay:
                self._drain(self._on(self._leaving - drained, pool))
        self.actions += self._stopped_or_renewed(ordered_out)
        if pool not in self._stay:
            self._drain(self._on(drained, pool))

    def _taken_back(self, decision: Decision, own: Sequence[Instance]) -> list[Instance]:
        """Who of them is to consume again: whoever is needed, or may not be stopped for now."""
        if decision.pool in self._stay:
            return list(own)
        pinned = self._observation.pinned
        back = [each for each in own if each.key in pinned]
        if decision.direction is Direction.UP:
            missing = decision.desired - decision.running - len(back)
            others = [
                each for each in own if each.host not in self._leaving and each.key not in pinned
            ]
            back += drains.returners(others)[: max(0, missing)]
        return back

    def give_way(self) -> None:
        """Empty places of pools whose broker is down, where starts of another's need them."""
        observation = self._observation
        if not self._short:
            return
        room = Room(self._settings, observation, self._places, self._given_up())
        room.comes(action.host for action in self.actions if isinstance(action, Drain))
        room.comes(
            each.host
            for pool, instances in self._draining.items()
            if self._settings.pools[pool].broker not in observation.confirmed_down
            for each in instances
            if each.key not in self._back and not (each.active or each.reserved)
        )
        for pool, count in self._short.items():
            victims = room.make(pool, count)
            self.actions += self._stopped_or_renewed(
                each for each in victims if each.draining is not None
            )
            self._drain(each for each in victims if each.draining is None)
            givers = sorted({victim.pool for victim in victims})
            self.notes += [f"{giver} gives way to {pool}: its broker is down" for giver in givers]

    def overdue(self) -> Iterator[tuple[InstanceKey, str]]:
        """Instances that drain for longer than their tasks may take."""
        for pool, instances in self._draining.items():
            limit_s = self._settings.pools[pool].task_time_limit_s
            for each in instances:
                proof = self._proofs.get(each.key)
                why = drains.overdue(each, proof, limit_s=limit_s, now=self._observation.now)
                if why is not None:
                    yield each.key, why

    def _is_known(self, pool: str) -> bool:
        """Whether all is known that could speak against a stop."""
        observation = self._observation
        return (
            self._all_answer
            and isinstance(observation.waiting.get(pool), int)
            and self._settings.pools[pool].broker not in observation.confirmed_down
            and not any(
                each.state is InstanceState.UNREPORTED for each in observation.instances(pool)
            )
        )

    def _start(self, decision: Decision, count: int, *, beside: int) -> None:
        """Start so many, beside those that drain on, of which the decision does not know."""
        pool = decision.pool
        if decision.basis is not None and decision.basis.limits.no_starts is not None:
            # What was decided is no more than to take back what drains.
            return
        within = max(0, min(count, self._below_maximum(decision)) if beside else count)
        starts = self._places.starts(pool, within)
        self.actions += starts
        if within < count:
            self.notes.append(
                f"{pool}: {count - within} of {count} starts wait, those that drain count against "
                "the maximum"
            )
        if len(starts) < within:
            self._short[pool] = within - len(starts)
            self.notes.append(
                f"{pool}: {within - len(starts)} of {within} starts wait, "
                f"{self._places.why_not(pool)}"
            )

    def _below_maximum(self, decision: Decision) -> int:
        """How many more there may be, with all that runs or may run."""
        pool, observation = decision.pool, self._observation
        maximum = self._settings.pools[pool].max_instances
        if decision.basis is not None:
            maximum = decision.basis.limits.maximum.count
        held = sum(
            each.state is not InstanceState.FAILED for each in observation.instances(pool)
        ) + sum(each.pool == pool for each in observation.unseen)
        return max(0, maximum - held)

    def _surplus(self, pool: str) -> list[Instance]:
        """Whom to drain because there are too many, the best first."""
        instances = self._observation.instances(pool)
        return [
            each
            for each in drains.victims(instances, self._observation.now)
            if each.key not in self._kept and each.host not in self._leaving
        ]

    def _on(self, hosts: Collection[str], pool: str) -> list[Instance]:
        """Whom to drain so that these hosts become empty."""
        return [
            each
            for each in self._observation.instances(pool)
            if each.host in hosts and each.state in _LEAVES and each.key not in self._kept
        ]

    def _given_up(self) -> list[Instance]:
        """Who may give its place away, in this order; who drains for it already comes first."""
        observation = self._observation
        instances = [
            instance
            for name, pool in self._settings.pools.items()
            if pool.broker in observation.confirmed_down and name not in self._stay
            for instance in observation.instances(name)
        ]
        in_order = [
            *reversed(drains.returners(instances)),
            *drains.victims(instances, observation.now),
        ]
        # One that still reaches its broker knows better than the surveys.
        return [each for each in in_order if each.connected is False and each.key not in self._kept]

    def _drain(self, instances: Iterable[Instance]) -> None:
        self.actions += [Drain(*each.key) for each in instances]

    def _stopped_or_renewed(self, instances: Iterable[Instance]) -> Iterator[Action]:
        for each in instances:
            if drains.is_proved(each, self._proofs.get(each.key), self._observation.now):
                yield Stop(*each.key)
            else:
                yield from self._renewed([each])

    def _renewed(self, instances: Iterable[Instance]) -> Iterator[Action]:
        for each in instances:
            if drains.is_due(each, self._proofs.get(each.key), self._observation.now):
                yield Renew(*each.key)

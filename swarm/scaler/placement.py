"""Which instance on which host. Pure: the same decision and picture give the same plan.

Starts go where most room is left; stops take the instance that has been idle longest, on the
host that is easiest to empty. A stop needs proof: two reports, from two turns, both idle, by the
same process, with no task ended in between.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from swarm.scaler.model import (
    Action,
    Decision,
    Direction,
    HostReport,
    Instance,
    InstanceKey,
    InstanceState,
    Observation,
    Stop,
)
from swarm.scaler.places import Places
from swarm.settings import Settings

#: Seconds between the two reports that prove an instance idle.
IDLE_PROOF_GAP_S = 2.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions, and why some that were asked for are missing."""

    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IdleProof:
    """What an idle instance said when it was first seen idle."""

    seen_at: float
    pid: int
    tasks_ended: int


Proofs = Mapping[InstanceKey, IdleProof]


def gather_proofs(observation: Observation, earlier: Proofs) -> dict[InstanceKey, IdleProof]:
    """First sight of each instance that has been idle ever since."""
    proofs = {}
    for host, report in observation.hosts.items():
        if not isinstance(report, HostReport):
            continue
        seen_at = observation.seen_at(host)
        for instance in report.instances:
            if instance.state is not InstanceState.IDLE:
                continue
            first = earlier.get(instance.key)
            if first is None or (first.pid, first.tasks_ended) != (
                instance.pid,
                instance.tasks_ended,
            ):
                first = IdleProof(seen_at, instance.pid, instance.tasks_ended)
            proofs[instance.key] = first
    return proofs


def plan(
    decisions: Mapping[str, Decision],
    settings: Settings,
    observation: Observation,
    proofs: Proofs,
) -> Plan:
    """The actions of one turn, over all pools, within every host's limits."""

    def on_fallback(pool: str) -> bool:
        return settings.pools[pool].broker == "fallback"

    if all(decision.direction is Direction.HOLD for decision in decisions.values()):
        return Plan()
    places = Places(settings, observation)
    actions: list[Action] = []
    notes: list[str] = []
    short: dict[str, int] = {}
    # What the fallback holds is done first: it was accepted while the primary was away.
    for decision in sorted(decisions.values(), key=lambda each: not on_fallback(each.pool)):
        missing = decision.desired - decision.running
        if decision.direction is Direction.UP:
            starts = places.starts(decision.pool, missing)
            actions += starts
            if len(starts) < missing:
                short[decision.pool] = missing - len(starts)
                notes.append(
                    f"{decision.pool}: {missing - len(starts)} of {missing} starts wait, "
                    f"{places.why_not(decision.pool)}"
                )
        elif decision.direction is Direction.DOWN:
            victims = proved_idle(decision.pool, observation, proofs)[
                : decision.running - decision.desired
            ]
            actions += [Stop(victim.host, victim.pool, victim.number) for victim in victims]
    if not short:
        return Plan(tuple(actions), tuple(notes))
    # Only now: what is free or is left was given to whoever comes first.
    stay = {
        name
        for name, decision in decisions.items()
        if decision.basis is not None and decision.basis.limits.no_stops is not None
    }
    room = _Room(settings, observation, proofs, places, stay)
    room.comes(action.host for action in actions if isinstance(action, Stop))
    for pool, count in short.items():
        victims = room.make(pool, count)
        actions += [Stop(victim.host, victim.pool, victim.number) for victim in victims]
        givers = sorted({victim.pool for victim in victims})
        notes += [f"{giver} gives way to {pool}: its broker is down" for giver in givers]
    return Plan(tuple(actions), tuple(notes))


def proved_idle(pool: str, observation: Observation, proofs: Proofs) -> list[Instance]:
    """The pool's instances that may be stopped, the best to stop first."""
    return _proved(observation.instances(pool), observation, proofs)


def _proved(
    instances: Sequence[Instance], observation: Observation, proofs: Proofs
) -> list[Instance]:
    """Those of them that hold nothing, the best to stop first."""
    busy: dict[str, int] = {}
    for instance in instances:
        if instance.state is not InstanceState.IDLE:
            busy[instance.host] = busy.get(instance.host, 0) + 1

    def proved(instance: Instance) -> bool:
        proof = proofs.get(instance.key)
        return (
            instance.state is InstanceState.IDLE
            and instance.key not in observation.pinned
            and instance.active == 0
            and instance.reserved == 0
            and proof is not None
            and proof.pid == instance.pid
            and proof.tasks_ended == instance.tasks_ended
            and observation.seen_at(instance.host) - proof.seen_at >= IDLE_PROOF_GAP_S
        )

    return sorted(
        filter(proved, instances),
        key=lambda i: (busy.get(i.host, 0), -i.idle_for_s(observation.now), i.host, -i.number),
    )


class _Room:
    """Places that pools of a broker that is down give to those of one that answers."""

    def __init__(
        self,
        settings: Settings,
        observation: Observation,
        proofs: Proofs,
        places: Places,
        stay: Collection[str],
    ) -> None:
        """`stay` are pools of which nothing may be stopped."""
        self._settings = settings
        self._brokers = observation.brokers
        self._places = places
        given_up = [
            instance
            for name, pool in settings.pools.items()
            if pool.broker in observation.confirmed_down and name not in stay
            for instance in observation.instances(name)
        ]
        # One that still reaches its broker knows better than the surveys.
        self._victims = [
            instance
            for instance in _proved(given_up, observation, proofs)
            if instance.connected is False
        ]
        self._coming = places.free()
        for host, report in observation.hosts.items():
            if isinstance(report, HostReport):
                self.comes(host for instance in report.instances if _leaves(instance))

    def comes(self, hosts: Iterable[str]) -> None:
        """A place becomes free on each of these, and nobody need give way for it."""
        for host in hosts:
            self._coming[host] += 1

    def make(self, pool: str, count: int) -> list[Instance]:
        """Whom to stop so that the pool gets so many starts more, no more than that takes."""
        broker = self._brokers.get(self._settings.pools[pool].broker)
        if not self._victims or broker is None or broker.down_for_s is not None:
            return []
        victims = []
        for _ in range(count):
            victim = None if self._takes_what_comes(pool) else self._choose(pool)
            if victim is not None:
                victims.append(victim)
        return victims

    def _takes_what_comes(self, pool: str) -> bool:
        for host, count in self._coming.items():
            if count > 0 and self._places.may_take(host, pool):
                self._coming[host] -= 1
                return True
        return False

    def _choose(self, pool: str) -> Instance | None:
        for victim in self._victims:
            if self._places.may_take(victim.host, pool):
                self._victims.remove(victim)
                return victim
        return None


def _leaves(instance: Instance) -> bool:
    """Whether it is gone soon."""
    return instance.state is InstanceState.STOPPING and not (instance.active or instance.reserved)

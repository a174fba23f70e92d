"""Which instance on which host. Pure: the same decision and picture give the same plan.

Starts go where most room is left; stops take the instance that has been idle longest, on the
host that is easiest to empty. A stop needs proof: two reports, from two turns, both idle, by the
same process, with no task ended in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from swarm.scaler.model import (
    Action,
    Decision,
    Direction,
    HostReport,
    Instance,
    InstanceState,
    Observation,
    Start,
    Stop,
)
from swarm.settings import MAX_INSTANCE_NUMBER, HostSettings, ScalerSettings

#: Seconds a host gets no start of a pool of which an instance failed there; systemd has tried it
#: several times by then. An instance that failed on its configuration waits longer: nothing
#: changes until somebody mends it.
FAILED_PAUSE_S = 60.0
MISCONFIGURED_PAUSE_S = 600.0
#: Seconds between the two reports that prove an instance idle.
IDLE_PROOF_GAP_S = 2.0

_HOLDS_A_PLACE = {
    InstanceState.STARTING,
    InstanceState.IDLE,
    InstanceState.BUSY,
    InstanceState.PAUSED,
    InstanceState.STOPPING,
    InstanceState.UNREPORTED,
}


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


Proofs = Mapping[tuple[str, str, int], IdleProof]


def gather_proofs(
    observation: Observation, earlier: Proofs
) -> dict[tuple[str, str, int], IdleProof]:
    """First sight of each instance that has been idle ever since."""
    proofs = {}
    for report in observation.hosts.values():
        if not isinstance(report, HostReport):
            continue
        for instance in report.instances:
            if instance.state is not InstanceState.IDLE:
                continue
            first = earlier.get(instance.key)
            if first is None or (first.pid, first.tasks_ended) != (
                instance.pid,
                instance.tasks_ended,
            ):
                first = IdleProof(observation.now, instance.pid, instance.tasks_ended)
            proofs[instance.key] = first
    return proofs


def plan(
    decisions: Mapping[str, Decision],
    hosts: Mapping[str, HostSettings],
    scaler: ScalerSettings,
    observation: Observation,
    proofs: Proofs,
) -> Plan:
    """The actions of one turn, over all pools, within every host's limits."""
    places = _Places(hosts, scaler, observation)
    actions: list[Action] = []
    notes: list[str] = []
    for decision in decisions.values():
        missing = decision.desired - decision.running
        if decision.direction is Direction.UP:
            starts = places.starts(decision.pool, missing)
            actions += starts
            if len(starts) < missing:
                notes.append(
                    f"{decision.pool}: {missing - len(starts)} of {missing} starts wait, "
                    f"{places.why_not(decision.pool)}"
                )
        elif decision.direction is Direction.DOWN:
            victims = proved_idle(decision.pool, scaler, observation, proofs)[
                : decision.running - decision.desired
            ]
            actions += [Stop(victim.host, victim.pool, victim.number) for victim in victims]
    return Plan(tuple(actions), tuple(notes))


def proved_idle(
    pool: str, scaler: ScalerSettings, observation: Observation, proofs: Proofs
) -> list[Instance]:
    """The pool's instances that may be stopped, the best to stop first."""
    instances = observation.instances(pool)
    busy: dict[str, int] = {}
    for instance in instances:
        if instance.state is not InstanceState.IDLE:
            busy[instance.host] = busy.get(instance.host, 0) + 1

    def proved(instance: Instance) -> bool:
        proof = proofs.get(instance.key)
        return (
            instance.state is InstanceState.IDLE
            and instance.active == 0
            and instance.reserved == 0
            and instance.idle_for_s >= scaler.idle_before_stop_s
            and proof is not None
            and proof.pid == instance.pid
            and proof.tasks_ended == instance.tasks_ended
            and observation.now - proof.seen_at >= IDLE_PROOF_GAP_S
        )

    return sorted(
        filter(proved, instances),
        key=lambda i: (busy.get(i.host, 0), -i.idle_for_s, i.host, -i.number),
    )


class _Places:
    """Room left on the hosts that answered, taken up start by start."""

    def __init__(
        self, hosts: Mapping[str, HostSettings], scaler: ScalerSettings, observation: Observation
    ) -> None:
        self._hosts = hosts
        self._reports = {
            name: report
            for name, report in observation.hosts.items()
            if isinstance(report, HostReport)
        }
        self._free = {}
        for name, report in self._reports.items():
            held = sum(instance.state in _HOLDS_A_PLACE for instance in report.instances)
            self._free[name] = hosts[name].max_instances - held
        self._starts_left = dict.fromkeys(self._reports, scaler.host_starts_per_turn)
        self._taken = {
            instance.key
            for report in self._reports.values()
            for instance in report.instances
            if instance.state in _HOLDS_A_PLACE
        }

    def starts(self, pool: str, count: int) -> list[Start]:
        starts: list[Start] = []
        while len(starts) < count:
            candidates = [name for name in self._reports if self._takes(name, pool)]
            if not candidates:
                break
            host = min(candidates, key=lambda name: (-self._free[name], name))
            number = next(
                n for n in range(1, MAX_INSTANCE_NUMBER + 1) if (host, pool, n) not in self._taken
            )
            self._taken.add((host, pool, number))
            self._free[host] -= 1
            self._starts_left[host] -= 1
            starts.append(Start(host, pool, number))
        return starts

    def why_not(self, pool: str) -> str:
        """Why no host takes one more."""
        serving = [name for name in self._reports if self._hosts[name].serves(pool)]
        if not serving:
            return "no host that answers runs this pool"
        paused = [name for name in serving if self._paused(name, pool)]
        if paused:
            return f"instances failed on {', '.join(sorted(paused))}"
        if any(self._free[name] > 0 for name in serving):
            return "each host starts a few at a time"
        return "every host is full"

    def _takes(self, host: str, pool: str) -> bool:
        return (
            self._hosts[host].serves(pool)
            and self._free[host] > 0
            and self._starts_left[host] > 0
            and not self._paused(host, pool)
        )

    def _paused(self, host: str, pool: str) -> bool:
        return any(
            instance.pool == pool
            and instance.state is InstanceState.FAILED
            and instance.state_for_s
            < (MISCONFIGURED_PAUSE_S if instance.misconfigured else FAILED_PAUSE_S)
            for instance in self._reports[host].instances
        )

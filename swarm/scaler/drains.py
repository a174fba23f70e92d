"""What proves that an instance which drains may be stopped, and when it is asked. Pure.

    consuming ──drain──> draining ──two readings, 2 s apart──> proved ──> stopped
        ^                   │                                    │
        └──────── undrain, or nobody renewed the drain ──────────┘

All that outlives a turn is on the hosts, but the readings: a scaler that starts anew adopts the
drains that it sees, and has to read everything anew.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from swarm.scaler.model import (
    DrainReading,
    HostReport,
    Instance,
    InstanceKey,
    InstanceState,
    Observation,
)

#: Least seconds of the host's clock between the two readings that prove an instance idle.
PROOF_GAP_S = 2.0
#: Seconds after which it is asked for the second one: an answer that took a little longer than the
#: next one must not make them too close.
_ASK_AGAIN_S = 2.1
#: Seconds after which a drain is renewed. The instance ends it after 60 s (`swarm.worker.drain`); a
#: command takes 20 at most, so two may fail.
RENEW_S = 20.0
#: Seconds for which a proof counts: a stop that follows comes before the drain could have ended.
_PROOF_AGE_S = 20.0
#: Processor seconds in a second above which processes are at work. What is idle takes a fiftieth: a
#: browser that has no page, a worker that waits.
_AT_WORK = 0.5
#: Seconds beyond the time limit of its tasks after which a drain is too old.
OVERDUE_MARGIN_S = 60.0
#: Seconds for which an instance that refused to drain is passed over.
REFUSAL_S = 60.0


@dataclass(frozen=True, slots=True)
class Proof:
    """What an instance has answered since it drains."""

    first: DrainReading
    """The earliest one since which nothing speaks against a stop; else the last."""
    last: DrainReading
    asked_at: float
    """When the last one was asked for, at the earliest."""
    tasks_ended: int
    """As it told when `first` had come."""

    def after(self, reading: DrainReading, asked_at: float) -> Proof:
        """With one more."""
        held = _holds(self.first) and _holds(reading) and _is_still(self.first, reading)
        first = self.first if held else reading
        return replace(self, first=first, last=reading, asked_at=asked_at)


Proofs = Mapping[InstanceKey, Proof]


def _holds(reading: DrainReading) -> bool:
    return reading.is_idle and reading.witness is not None and reading.witness.renderers == 0


def _is_still(first: DrainReading, last: DrainReading) -> bool:
    """Whether it was the same idle process at both times, and hardly worked between them."""
    if (first.pid, first.sequence) != (last.pid, last.sequence):
        return False
    if first.witness is None or last.witness is None:
        return False
    worked_s = last.witness.cpu_s - first.witness.cpu_s
    return worked_s <= _AT_WORK * max(PROOF_GAP_S, last.at - first.at)


def gather(
    observation: Observation,
    earlier: Proofs,
    readings: Mapping[InstanceKey, DrainReading],
    *,
    asked_at: float,
) -> dict[InstanceKey, Proof]:
    """What is proved by now, with the readings that came of the turn before, at `asked_at`.

    Of an instance that is not seen draining, or that has ended a task since, nothing is left.
    """
    proofs = {}
    for instance in draining(observation):
        proof, reading = earlier.get(instance.key), readings.get(instance.key)
        if reading is not None:
            proof = (
                proof.after(reading, asked_at)
                if proof is not None and proof.tasks_ended == instance.tasks_ended
                else Proof(reading, reading, asked_at, instance.tasks_ended)
            )
        if proof is not None and proof.tasks_ended == instance.tasks_ended:
            proofs[instance.key] = proof
    return proofs


def draining(observation: Observation) -> list[Instance]:
    """Every instance that drains, of all pools, on hosts that answered."""
    return [
        instance
        for report in observation.hosts.values()
        if isinstance(report, HostReport)
        for instance in report.instances
        if instance.state is InstanceState.DRAINING
    ]


def is_proved(instance: Instance, proof: Proof | None, now: float) -> bool:
    """Whether a stop cannot hit a task: by what it tells, by two readings, and by the witness."""
    return (
        proof is not None
        and instance.draining is not None
        and instance.draining.is_idle
        and instance.active == instance.reserved == 0
        and _holds(proof.first)
        and _holds(proof.last)
        and _is_still(proof.first, proof.last)
        and (proof.last.pid, proof.last.sequence) == (instance.pid, instance.draining.sequence)
        and proof.tasks_ended == instance.tasks_ended
        and proof.last.at - proof.first.at >= PROOF_GAP_S
        and now - proof.asked_at <= _PROOF_AGE_S
    )


def is_due(instance: Instance, proof: Proof | None, now: float) -> bool:
    """Whether it is to be asked now: for a reading, or lest its drain ends."""
    if proof is None or now - proof.asked_at >= RENEW_S:
        return True
    if instance.draining is None or not instance.draining.is_idle:
        return False
    if not proof.last.is_idle or proof.last.sequence != instance.draining.sequence:
        # It has become idle since.
        return True
    # What speaks against a stop is not gone in a moment, or it never will be.
    is_open = _holds(proof.last) and not is_proved(instance, proof, now)
    return is_open and now - proof.asked_at >= _ASK_AGAIN_S


def due_at(
    proofs: Proofs, readings: Mapping[InstanceKey, DrainReading], *, now: float
) -> float | None:
    """When the first of those that drain is to be asked again, or stopped.

    `readings` are those of the turn that began at `now`. None when nothing waits for a moment;
    later than `now` unless one of them completes a proof.
    """
    moments = []
    for key, reading in readings.items():
        proof = proofs.get(key)
        first = reading if proof is None else proof.after(reading, now).first
        if _holds(reading):
            is_complete = reading.at - first.at >= PROOF_GAP_S
            moments.append(now if is_complete else now + _ASK_AGAIN_S)
    for key, proof in proofs.items():
        is_open = _holds(proof.last) and proof.last.at - proof.first.at < PROOF_GAP_S
        if key not in readings and is_open and proof.asked_at + _ASK_AGAIN_S > now:
            moments.append(proof.asked_at + _ASK_AGAIN_S)
    return min(moments, default=None)


def is_idle(instance: Instance) -> bool:
    """Whether it waits for a task, by its own word."""
    return instance.state is InstanceState.IDLE and not (instance.active or instance.reserved)


def victims(instances: Collection[Instance], now: float) -> list[Instance]:
    """Those that may be drained because there are too many, the best one first.

    Idle ones only: what is busy counts as needed, so there are never more too many than idle. The
    longest idle comes first, on the host where the fewest others work.
    """
    busy: dict[str, int] = {}
    for instance in instances:
        if instance.state not in {InstanceState.IDLE, InstanceState.DRAINING}:
            busy[instance.host] = busy.get(instance.host, 0) + 1
    return sorted(
        filter(is_idle, instances),
        key=lambda i: (busy.get(i.host, 0), -i.idle_for_s(now), i.host, -i.number),
    )


def returners(instances: Collection[Instance]) -> list[Instance]:
    """Those of them that drain, in the order in which they are taken back.

    Who has no task takes one at once; and the last to drain is the least likely to have gone.
    """
    drained = [(each.draining, each) for each in instances if each.draining is not None]
    drained.sort(key=lambda pair: (not pair[0].is_idle, -pair[0].since, pair[1].key))
    return [instance for _, instance in drained]


def overdue(instance: Instance, proof: Proof | None, *, limit_s: float, now: float) -> str | None:
    """Why it drains for so much longer than its tasks may take; None when it does not."""
    if instance.draining is None or now - instance.draining.since <= limit_s + OVERDUE_MARGIN_S:
        return None
    if not instance.draining.is_idle:
        return f"it has {instance.active} active and {instance.reserved} reserved tasks"
    if proof is None:
        return "it does not answer"
    if proof.last.witness is None:
        return "its processes cannot be seen"
    if proof.last.witness.renderers:
        return f"{proof.last.witness.renderers} pages are open in its browser"
    if not is_proved(instance, proof, now):
        return "its processes are at work"
    return "it is not stopped"

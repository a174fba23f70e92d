"""Hosts on which instances of a pool fail to start, and for how long each is left alone. Pure.

It is read from what hosts show, so that a new scaler knows it too: a unit that has failed stays in
systemd's list until it is started again, and numbers of failed ones are used last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from swarm.scaler.model import HostReport, Instance, InstanceState, Observation
from swarm.settings import PoolSettings, Settings

#: Seconds a host gets no start of a pool of which an instance failed there; systemd has tried it
#: several times by then. An instance that failed on its configuration waits longer: nothing
#: changes until somebody mends it.
FAILED_PAUSE_S = 60.0
MISCONFIGURED_PAUSE_S = 600.0
#: So many failures in a row make a host suspect: it is tried with one start at a time, after a time
#: that doubles with each round of failures up to the longest.
STRIKES = 3
LONGEST_PAUSE_S = 1800.0
#: An instance that is not ready after so many seconds, or so many times the time of a start, has
#: failed, whatever systemd waits for.
OVERDUE_S = 60.0
OVERDUE_BOOTS = 3.0

_WORKS = {InstanceState.IDLE, InstanceState.BUSY, InstanceState.PAUSED}


@dataclass(frozen=True, slots=True)
class Failures:
    """Of one pool on one host, since an instance last became ready there."""

    count: int
    pause_until: float

    @property
    def is_suspect(self) -> bool:
        return self.count >= STRIKES


def overdue_s(boot_time_s: float) -> float:
    """Seconds after which a start has failed."""
    return max(OVERDUE_S, OVERDUE_BOOTS * boot_time_s)


def failures(settings: Settings, observation: Observation) -> dict[tuple[str, str], Failures]:
    """By host and pool; those that have none are left out."""
    found: dict[tuple[str, str], Failures] = {}
    for host, report in observation.hosts.items():
        if not isinstance(report, HostReport):
            continue
        for pool in {each.pool for each in report.instances if _may_have_failed(each)}:
            if pool in settings.pools:
                own = [each for each in report.instances if each.pool == pool]
                at = _failed_at(own, settings.pools[pool], observation.now)
                if at:
                    found[host, pool] = _judge(at)
    return found


def suspects(found: Mapping[tuple[str, str], Failures], pool: str) -> list[str]:
    """The hosts on which the pool's instances fail again and again."""
    return sorted(host for (host, name), each in found.items() if name == pool and each.is_suspect)


def breaker_is_open(
    found: Mapping[tuple[str, str], Failures],
    pool: str,
    settings: Settings,
    observation: Observation,
) -> bool:
    """Whether they do on half of the hosts at least: it is hardly the hosts' fault then."""
    serving = {
        host
        for host, report in observation.hosts.items()
        if isinstance(report, HostReport)
        and settings.hosts[host].serves(pool)
        and host not in observation.drained
    }
    # What failed where nothing may be started says nothing of those where it may.
    return 0 < len(serving) <= 2 * len(serving.intersection(suspects(found, pool)))


def _may_have_failed(instance: Instance) -> bool:
    return instance.state in {InstanceState.FAILED, InstanceState.STARTING}


def failed_lately(own: Sequence[Instance]) -> list[Instance]:
    """Those of a pool's instances on a host that failed after one of them last became ready."""
    succeeded_at = max(
        (each.state_since for each in own if each.state in _WORKS), default=float("-inf")
    )
    return [
        each
        for each in own
        if each.state is InstanceState.FAILED and each.state_since > succeeded_at
    ]


def _failed_at(own: Sequence[Instance], pool: PoolSettings, now: float) -> list[tuple[float, bool]]:
    """When each failed, and whether on its configuration."""
    boots_s = [each.boot_time_s for each in own if each.boot_time_s is not None]
    limit_s = overdue_s(max(boots_s, default=pool.expected_boot_time_s))
    failed = [(each.state_since, each.misconfigured) for each in failed_lately(own)]
    overdue = [
        (each.state_since + limit_s, False)
        for each in own
        if each.state is InstanceState.STARTING and each.state_for_s(now) > limit_s
    ]
    return sorted(failed + overdue)


def _judge(failed: list[tuple[float, bool]]) -> Failures:
    """Those that failed together, as they were started together, are one round."""
    last, misconfigured = failed[-1][0], any(each for _, each in failed)
    rounds, before = 0, float("-inf")
    for at, _ in failed:
        rounds += at - before >= FAILED_PAUSE_S
        before = at
    pause_s = FAILED_PAUSE_S
    if len(failed) >= STRIKES:
        pause_s = min(LONGEST_PAUSE_S, FAILED_PAUSE_S * 2.0 ** (rounds - 1))
    if misconfigured:
        pause_s = max(pause_s, MISCONFIGURED_PAUSE_S)
    return Failures(len(failed), last + pause_s)

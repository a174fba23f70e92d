"""Which fault strikes when and where: a seed in, a list of strikes out. Pure.

Time is divided into acts, in an order of the seed's. In one a host vanishes while a worker
elsewhere is frozen, in one a host is cut off from Redis for longer than a lease, in one the broker
suffers. Deaths of processes are strewn over all of them, on hosts that are there. Redis stays well
while something waits for the reaper, which would begin to watch anew after each outage: how long
that takes is the reaper's promise, and its own tests'.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal[
    "kill_worker",
    "kill_child",
    "end_child",
    "kill_browser",
    "kill_at_take",
    "kill_at_commit",
    "kill_after_commit",
    "restart_unit",
    "stop_unit",
    "kill_producer",
    "freeze_worker",
    "kill_host",
    "cut_long",
    "cut_short",
    "kill_redis",
    "restart_redis",
    "pause_redis",
    "fill_redis",
    "upgrade",
]

#: They need the proxy, which stands before one host's workers.
AT_THE_PROXY: frozenset[Fault] = frozenset({"kill_at_take", "kill_at_commit", "kill_after_commit"})
_BROKER_HOST = "control"

#: Seconds that a fault lasts at most until it is undone; what is not here is over at once.
LASTS_S: dict[Fault, float] = {
    "kill_at_take": 15,
    "kill_at_commit": 15,
    "kill_after_commit": 15,
    "freeze_worker": 82,
    "kill_host": 82,
    "cut_long": 70,
    "cut_short": 10,
    "kill_redis": 8,
    "restart_redis": 8,
    "pause_redis": 30,
    "fill_redis": 20,
    "upgrade": 20,
}


@dataclass(frozen=True, slots=True, order=True)
class Strike:
    """One fault."""

    at_s: float
    """Seconds after the first task."""
    fault: Fault
    host: str
    chance: float
    """0 to 1: which one of those it can strike."""

    @property
    def until_s(self) -> float:
        """When it is undone at the latest."""
        return self.at_s + LASTS_S.get(self.fault, 0.0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is made of."""

    tasks: int
    strewn: dict[Fault, int]
    """Deaths of processes and the like, by how often."""
    acts: tuple[Literal["host", "cut", "broker", "broker-short", "quiet"], ...]


FULL = Plan(
    tasks=2000,
    strewn={
        "kill_worker": 5,
        "kill_child": 5,
        "end_child": 3,
        "kill_browser": 4,
        "kill_at_take": 3,
        "kill_at_commit": 3,
        "kill_after_commit": 2,
        "restart_unit": 2,
        "stop_unit": 2,
        "kill_producer": 4,
        "upgrade": 1,
    },
    acts=("host", "cut", "broker"),
)
#: For `make test`: what needs no lease to run out.
SHORT = Plan(
    tasks=400,
    strewn={
        "kill_worker": 3,
        "kill_child": 2,
        "end_child": 1,
        "kill_browser": 1,
        "kill_at_take": 1,
        "kill_at_commit": 1,
        "restart_unit": 1,
        "stop_unit": 1,
        "kill_producer": 2,
    },
    acts=("quiet", "broker-short"),
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """All strikes of a run, in their order."""

    seed: int
    proxied: str
    """The host whose workers reach Redis through the proxy."""
    lasts_s: float
    strikes: tuple[Strike, ...]


@dataclass(slots=True)
class _Act:
    """A stretch of time and the hosts on which processes may be killed in it."""

    begins_s: float
    lasts_s: float
    hosts: list[str]
    strikes: list[Strike] = field(default_factory=list)


def make_schedule(seed: int, plan: Plan, hosts: tuple[str, str]) -> Schedule:
    """The same for the same seed."""
    chance = random.Random(seed)  # noqa: S311 - to be repeatable, not secret
    proxied = chance.choice(hosts)
    names = list(plan.acts)
    chance.shuffle(names)
    acts: list[_Act] = []
    at_s = 0.0
    for name in names:
        act = _make_act(name, at_s, hosts, chance)
        acts.append(act)
        at_s += act.lasts_s
    strikes = [strike for act in acts for strike in act.strikes]
    for fault, count in plan.strewn.items():
        fit = [act for act in acts if _fits(fault, act, proxied)]
        strikes += [_strew(fault, chance.choice(fit), proxied, chance) for _ in range(count)]
    return Schedule(seed, proxied, at_s, tuple(sorted(strikes)))


def _fits(fault: Fault, act: _Act, proxied: str) -> bool:
    if fault == "upgrade":
        # It goes over all hosts.
        return len(act.hosts) > 1
    return fault not in AT_THE_PROXY or proxied in act.hosts


def _strew(fault: Fault, act: _Act, proxied: str, chance: random.Random) -> Strike:
    room_s = max(10.0, act.lasts_s - LASTS_S.get(fault, 0.0) - 5.0)
    at_s = act.begins_s + round(chance.uniform(8.0, room_s), 1)
    host = proxied if fault in AT_THE_PROXY else chance.choice(act.hosts)
    return Strike(at_s, fault, host, chance.random())


def _make_act(name: str, at_s: float, hosts: tuple[str, str], chance: random.Random) -> _Act:
    here, there = chance.sample(hosts, 2)
    if name == "host":
        act = _Act(at_s, 102.0, [there])
        act.strikes = [
            Strike(at_s + chance.randint(8, 14), "kill_host", here, chance.random()),
            Strike(at_s + chance.randint(8, 14), "freeze_worker", there, chance.random()),
        ]
    elif name == "cut":
        act = _Act(at_s, 84.0, [there])
        act.strikes = [Strike(at_s + chance.randint(6, 12), "cut_long", here, chance.random())]
    elif name == "quiet":
        act = _Act(at_s, 45.0, list(hosts))
    else:
        act = _make_broker_act(name, at_s, here, hosts, chance)
    return act


def _make_broker_act(
    name: str, at_s: float, cut: str, hosts: tuple[str, str], chance: random.Random
) -> _Act:
    faults: list[Fault] = ["kill_redis", "restart_redis", "pause_redis", "fill_redis", "cut_short"]
    if name == "broker-short":
        faults = ["kill_redis", "cut_short"]
    chance.shuffle(faults)
    strikes = []
    next_s = at_s + 8.0
    for fault in faults:
        host = cut if fault == "cut_short" else _BROKER_HOST
        strikes.append(Strike(next_s, fault, host, chance.random()))
        next_s += LASTS_S[fault] + chance.randint(6, 10)
    # Whoever is killed while a host is cut off briefly may be on that host.
    return _Act(at_s, next_s - at_s + 5.0, list(hosts), strikes)

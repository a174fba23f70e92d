"""What happens to the primary, in which order and for how long: a seed in, strikes out. Pure.

The strikes come one after the other, the next one some seconds after all producers went back. What
else dies meanwhile, or in between, is given by its place in a strike.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal, get_args

from swarm.brokers import BrokerName

Kind = Literal["refused", "silent", "slow", "cut", "limited", "host_cut"]
"""`host_cut`: one host cannot reach the primary, all others can."""
BlowKind = Literal["kill_worker", "kill_child", "kill_scaler", "restart_hosted"]

#: Bounds of what a strike lasts, in seconds.
LASTS_S = (25, 40)
#: Bounds of the quiet time after the return, in seconds.
GAP_S = (8, 14)
#: Seconds after which the fallback's pools are there and busy.
_WARM_S = 14
#: On the fallback, one in each strike.
_ON_THE_FALLBACK: tuple[BlowKind, ...] = ("kill_worker", "kill_child") * 3
#: On the primary when it has just been struck, and so cannot be told.
_AS_IT_FAILS: tuple[BlowKind, ...] = ("kill_worker", "kill_child")
#: While all is well, at most one in each gap.
_IN_BETWEEN: tuple[BlowKind, ...] = (
    "kill_worker",
    "kill_child",
    "restart_hosted",
    "restart_hosted",
    "kill_scaler",
)


@dataclass(frozen=True, slots=True, order=True)
class Blow:
    """Something that dies, or restarts."""

    at_s: float
    """Seconds after the strike begins; of one in between, after the producers' return."""
    kind: BlowKind
    broker: BrokerName
    """Whose worker it is."""
    host: str
    chance: float
    """0 to 1: which one of those it can strike."""

    @property
    def name(self) -> str:
        """Under which it is counted."""
        if self.kind in {"kill_worker", "kill_child"}:
            return f"{self.kind}_of_{self.broker}"
        return self.kind


@dataclass(frozen=True, slots=True)
class Strike:
    """One way in which the primary fails, and what comes with it."""

    kind: Kind
    lasts_s: float
    gap_s: float
    meanwhile: list[Blow] = field(default_factory=list)
    afterwards: list[Blow] = field(default_factory=list)

    @property
    def blows(self) -> list[Blow]:
        return self.meanwhile + self.afterwards


def make_strikes(seed: int, hosts: tuple[str, str]) -> tuple[Strike, ...]:
    """The same for the same seed."""
    chance = random.Random(f"two brokers {seed}")  # noqa: S311 - to be repeatable, not secret
    kinds = list(get_args(Kind))
    chance.shuffle(kinds)
    strikes = [
        Strike(kind, round(chance.uniform(*LASTS_S), 1), round(chance.uniform(*GAP_S), 1))
        for kind in kinds
    ]

    def blow(kind: BlowKind, broker: BrokerName, begin_s: float, end_s: float) -> Blow:
        at_s = round(chance.uniform(begin_s, end_s), 1)
        return Blow(at_s, kind, broker, chance.choice(hosts), chance.random())

    for strike, kind in zip(strikes, _shuffled(_ON_THE_FALLBACK, chance), strict=True):
        strike.meanwhile.append(blow(kind, "fallback", _WARM_S, strike.lasts_s - 4))
    whole = [strike for strike in strikes if strike.kind != "host_cut"]
    for strike, kind in zip(chance.sample(whole, len(_AS_IT_FAILS)), _AS_IT_FAILS, strict=True):
        strike.meanwhile.append(blow(kind, "primary", 0.5, 3))
    strike = chance.choice(strikes)
    strike.meanwhile.append(blow("kill_scaler", "primary", 1, strike.lasts_s - 10))
    gaps = chance.sample(strikes, len(_IN_BETWEEN))
    for strike, kind in zip(gaps, _IN_BETWEEN, strict=True):
        strike.afterwards.append(blow(kind, "primary", 1, strike.gap_s - 4))
    for strike in strikes:
        strike.meanwhile.sort()
    return tuple(strikes)


def _shuffled(kinds: tuple[BlowKind, ...], chance: random.Random) -> list[BlowKind]:
    return chance.sample(kinds, len(kinds))

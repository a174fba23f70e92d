"""How much waits in the pools of one broker, from whoever knows it at the least cost.

`asking` decides whom to ask; here they are asked, and what the next turn needs of it is kept.
There is one for each broker: their queues may have the same names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import inf

from swarm.scaler import asking
from swarm.scaler.asking import Source
from swarm.scaler.model import HostReport, Unknown
from swarm.scaler.ports import BrokerSide
from swarm.settings import PoolSettings, ScalerSettings


class Backlog:
    """Holds what a turn needs of the ones before it."""

    def __init__(
        self,
        pools: Mapping[str, PoolSettings],
        scaler: ScalerSettings,
        side: BrokerSide,
        *,
        elsewhere: Collection[str] = (),
    ) -> None:
        """`pools` serve this broker, those named in `elsewhere` another."""
        self._pools = pools
        self._scaler = scaler
        self._queues = side.queues
        self._view = side.view
        self._metered = side.metered
        self._elsewhere = frozenset(elsewhere)
        # Since when the broker itself is asked about each pool without a break.
        self._asked_since: dict[str, float] = {}
        # When each pool last had work, or was sure to have none.
        self._active_at: dict[str, float] = {}
        # Piles that turned out to be none, by queue and the time of the survey that saw them.
        self._cleared: dict[str, float] = {}

    async def waiting(
        self,
        now: float,
        hosts: Mapping[str, HostReport | Unknown],
        kept: Mapping[str, int] = asking.NOTHING_KEPT,
    ) -> dict[str, int | Unknown]:
        """Tasks in each pool's queues; `kept` is how many instances of each the last turn kept."""
        hosts = asking.without(hosts, self._elsewhere)
        self._view.attend(asking.attention(self._pools, hosts, metered=self._metered))
        lengths = await self._lengths(now, hosts, kept)
        return {name: _total(pool.queues, lengths) for name, pool in self._pools.items()}

    def given_up(
        self, now: float, hosts: Mapping[str, HostReport | Unknown], reason: str
    ) -> dict[str, int | Unknown]:
        """The same while the broker is confirmed down: nobody is asked, as nobody can know.

        Once it is back, its pools at zero are looked at in every turn again.
        """
        hosts = asking.without(hosts, self._elsewhere)
        self._view.attend(asking.attention(self._pools, hosts, metered=self._metered))
        self._active_at = dict.fromkeys(self._pools, now)
        return dict.fromkeys(self._pools, Unknown(reason))

    async def _lengths(
        self,
        now: float,
        hosts: Mapping[str, HostReport | Unknown],
        kept: Mapping[str, int],
    ) -> Mapping[str, int | Unknown]:
        pools, piled = self._pools, self._view.piled()
        sources = asking.choose(
            pools,
            asking.reported(hosts),
            kept=kept,
            quiet=self._view.quiet(),
            doubted=[queue for queue, at in piled.items() if self._cleared.get(queue) != at],
            metered=self._metered,
        )
        asked = {
            source: [
                q for name, pool in pools.items() if sources[name] is source for q in pool.queues
            ]
            for source in Source
        }
        self._asked_since = {
            name: self._asked_since.get(name, now)
            for name, source in sources.items()
            if source is Source.BROKER
        }
        lengths: dict[str, int | Unknown] = dict.fromkeys(asked[Source.NOBODY], 0)
        if asked[Source.FLOWER]:
            lengths |= await self._queues.waiting(asked[Source.FLOWER])
        if asked[Source.BROKER]:
            lengths |= await self._ask_broker(now, asked[Source.BROKER])
        for name, pool in pools.items():
            total = _total(pool.queues, lengths)
            if sources[name] is not Source.BROKER or (isinstance(total, int) and total > 0):
                self._active_at[name] = now
        for queue in asked[Source.FLOWER]:
            if lengths.get(queue) == 0 and queue in piled:
                self._cleared[queue] = piled[queue]
        return lengths

    async def _ask_broker(self, now: float, queues: Sequence[str]) -> Mapping[str, int | Unknown]:
        """Every turn at first, then more and more rarely.

        The longer ago a pool had work; or, where each look is paid for, the longer it has some.
        """
        if self._metered:
            since = self._asked_since
            at_most = asking.METERED_LOOK_S * self._view.stretch
        else:
            since = {name: self._active_at.setdefault(name, now) for name in self._asked_since}
            at_most = self._scaler.zero_check_s
        ages = [asking.max_age_s(now, active_at=at, at_most=at_most) for at in since.values()]
        # While it is down it is looked at in a rhythm of its own, and a turn need not wait.
        is_down = self._view.condition().down_for_s is not None
        return await self._view.waiting(queues, max_age_s=inf if is_down else min(ages))


def _total(queues: Sequence[str], lengths: Mapping[str, int | Unknown]) -> int | Unknown:
    """The pool's backlog; unknown when the length of any of its queues is."""
    total = 0
    for queue in queues:
        length = lengths.get(queue, Unknown(f"no answer about queue {queue}"))
        if isinstance(length, Unknown):
            return length
        total += length
    return total

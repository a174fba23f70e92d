"""Idle instances that do not reach their broker while the scaler does: their host is cut off.

They take no task, so they are no capacity; they are not stopped either, as their host may come
back. Pure but for what it remembers from turn to turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from swarm.scaler.model import BrokerCondition, HostReport, Instance, InstanceState, Unknown
from swarm.settings import PoolSettings

#: Seconds for which it must be so. Longer than an instance may wait before it connects anew (20 s)
#: and an attempt lasts: after an outage all are away for as long, and none of them is cut off.
CUT_OFF_AFTER_S = 30.0


class Reach:
    """Since when each instance is without a broker that answers the scaler."""

    def __init__(self, pools: Mapping[str, PoolSettings]) -> None:
        self._pools = pools
        self._since: dict[tuple[str, str, int], float] = {}

    def seen(
        self,
        now: float,
        hosts: Mapping[str, HostReport | Unknown],
        conditions: Mapping[str, BrokerCondition],
    ) -> dict[str, HostReport | Unknown]:
        """The same answers, in which those that are cut off are paused."""
        since: dict[tuple[str, str, int], float] = {}

        def judge(instance: Instance) -> Instance:
            if not self._is_alone(instance, conditions):
                return instance
            since[instance.key] = self._since.get(instance.key, now)
            if now - since[instance.key] < CUT_OFF_AFTER_S:
                return instance
            broker = self._pools[instance.pool].broker
            trouble = f"its host does not reach the {broker} broker, which answers the scaler"
            return replace(
                instance,
                state=InstanceState.PAUSED,
                idle_since=None,
                trouble=trouble,
                cut_off=True,
            )

        judged = {
            name: replace(report, instances=tuple(map(judge, report.instances)))
            if isinstance(report, HostReport)
            and any(instance.connected is False for instance in report.instances)
            else report
            for name, report in hosts.items()
        }
        self._since = since
        return judged

    def _is_alone(self, instance: Instance, conditions: Mapping[str, BrokerCondition]) -> bool:
        pool = self._pools.get(instance.pool)
        condition = None if pool is None else conditions.get(pool.broker)
        return (
            instance.state is InstanceState.IDLE
            and instance.connected is False
            and condition is not None
            and condition.reached
        )

"""How the scaler itself is: `swarm scaler status`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from swarm.scaler.model import Outcome, Unknown
from swarm.scaler.orders import Order
from swarm.scaler.story import describe
from swarm.settings import Settings


def overview(outcome: Outcome, settings: Settings, orders: Iterable[Order]) -> Iterator[str]:
    """Orders first: they are what somebody has to remember."""
    told = [_shown(order, settings) for order in orders]
    yield from told or ["no orders"]
    for name, decision in outcome.decisions.items():
        waiting = outcome.observation.waiting[name]
        length = "unknown" if isinstance(waiting, Unknown) else str(waiting)
        yield f"{describe(decision)}, {length} waiting"
    hosts = outcome.observation.hosts
    away = {name: each.reason for name, each in hosts.items() if isinstance(each, Unknown)}
    yield f"{len(hosts) - len(away)} of {len(hosts)} hosts answer"
    for name, reason in away.items():
        yield f"{name} does not answer: {reason}"


def _shown(order: Order, settings: Settings) -> str:
    """With what keeps it from having an effect."""
    if order.pool is not None and order.pool not in settings.pools:
        return f"{order}; config.yaml has no such pool"
    if order.host is not None and order.host not in settings.hosts:
        return f"{order}; config.yaml has no such host"
    return str(order)

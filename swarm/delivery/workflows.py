"""Workflows on one broker: a chain, group or chord goes where its first part is accepted.

Celery's canvas has no hook for this. So the three `apply_async` begin a placement, and the ids that
the canvas makes meanwhile name its broker.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import canvas

from swarm.brokers import BrokerName
from swarm.delivery import ids
from swarm.delivery.failover import Failover, current_placement


def register() -> None:
    """Have every workflow of an app with two brokers placed; safe to repeat."""
    canvas.uuid = _new_id
    for kind in (canvas._chain, canvas.group, canvas._chord):  # noqa: SLF001 - chain and chord
        if not hasattr(kind.apply_async, "__wrapped__"):
            kind.apply_async = _placed(kind.apply_async)


def _new_id() -> str:
    placement = current_placement()
    return ids.new_id("primary" if placement is None else placement.broker)


def _placed(apply_async: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(apply_async)
    def apply(self: Any, *args: Any, **options: Any) -> Any:
        submission = getattr(self.app, "submission", None)
        if submission is None:
            return apply_async(self, *args, **options)
        failover: Failover = submission.failover
        with failover.placing() as placement:
            result = apply_async(self, *args, **options)
        if placement.has_moved:
            _remember(result, placement.broker, failover)
        return result

    return apply


def _remember(result: Any, broker: BrokerName, failover: Failover) -> None:
    """All that hangs together with a result is on this broker."""
    while result is not None:
        failover.remember(result.id, broker)
        for part in getattr(result, "results", None) or ():
            _remember(part, broker, failover)
        result = result.parent

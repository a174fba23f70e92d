"""What an order will come to, by the last turn's picture, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from swarm.scaler.model import HostReport, InstanceState, Outcome
from swarm.scaler.orders import Order, OrderKind, show_time
from swarm.settings import Settings

#: Seconds in which an idle instance is drained and has proved it: two readings, and their turns.
_PROOF_S = 8


def of_pause(kinds: Collection[OrderKind]) -> str:
    """What no longer happens."""
    if OrderKind.PAUSE_OUT not in kinds:
        return "nothing is stopped; what is needed is started"
    if OrderKind.PAUSE_IN not in kinds:
        return "nothing is started, not even a minimum; what is not needed is stopped"
    return "nothing is started and nothing is stopped"


def of_set(
    pool: str, count: int, outcome: Outcome | None, orders: Iterable[Order]
) -> Iterator[str]:
    """The way to so many instances of a pool."""
    decision = outcome.decisions.get(pool) if outcome else None
    if decision is None:
        yield "no turn has ended yet: nobody knows how many run"
        return
    missing = count - decision.running
    if missing > 0:
        yield f"{decision.running} run, {missing} more are started, as fast as the hosts may"
    elif missing < 0:
        yield f"{decision.running} run, {-missing} are stopped, each once it has proved idle"
    else:
        yield f"{decision.running} run"
    yield from _hindrances(orders, starts=missing > 0, stops=missing < 0)


def of_drain(
    host: str, settings: Settings, outcome: Outcome | None, orders: Collection[Order]
) -> Iterator[str]:
    """The way to an empty host."""
    yield f"nothing is started there until `swarm scaler undrain {host}`"
    report = outcome.observation.hosts.get(host) if outcome else None
    if not isinstance(report, HostReport):
        yield "it does not answer: nothing is stopped there before it does"
        return
    pins = {(order.host, order.pool, order.number) for order in orders if order.number is not None}
    instances = [each for each in report.instances if each.state is not InstanceState.FAILED]
    strangers = [each for each in instances if each.pool not in settings.pools]
    leaving = [each for each in instances if each.key not in pins and each.pool in settings.pools]
    idle = sum(each.state is InstanceState.IDLE for each in leaving)
    if not instances:
        yield "no instance is there"
    if idle:
        yield f"{idle} idle: stopped once they have proved it, within some {_PROOF_S} s"
    if idle < len(leaving):
        longest = max(settings.pools[each.pool].task_time_limit_s for each in leaving)
        yield (
            f"{len(leaving) - idle} not idle: each is stopped after its task, "
            f"which may take {longest} s"
        )
    for each in strangers:
        yield f"{each.name} stays: config.yaml has no pool {each.pool}"
    for each in instances:
        if each.key in pins and each.pool in settings.pools:
            yield f"{each.name} stays: it is pinned"
    yield from _hindrances(orders, starts=False, stops=bool(leaving))


def of_pin(order: Order, outcome: Outcome | None) -> Iterator[str]:
    """What becomes of an instance that is pinned."""
    yield (
        "the scaler does not stop it until "
        f"`swarm instance unpin {order.host} {order.pool} {order.number}`"
    )
    report = outcome.observation.hosts.get(str(order.host)) if outcome else None
    if isinstance(report, HostReport) and all(
        each.key != (order.host, order.pool, order.number) for each in report.instances
    ):
        yield "it does not run now, and is not started for that"


def _hindrances(orders: Iterable[Order], *, starts: bool, stops: bool) -> Iterator[str]:
    hinders = {OrderKind.PAUSE_OUT: starts, OrderKind.PAUSE_IN: stops}
    for order in orders:
        if hinders.get(order.kind) and order.until is not None:
            yield f"but {order.what}: not before {show_time(order.until)}"

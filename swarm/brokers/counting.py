"""How many requests this process has made, by the broker's host and port.

Hosted services bill each command, those of a pipeline too; what they send by themselves, such as
messages of a subscription, is none. redis-py has no hook that sees every command of every
connection, its own AUTH and SELECT included; so the two methods that all of them pass are wrapped.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from swarm.brokers.address import Broker

if TYPE_CHECKING:
    import redis

Place = tuple[str, int]


#: Where Redis is unless a URL says otherwise; redis-py's connections know it, its pools do not.
_PORT = 6379


def place_of(broker: Broker) -> Place:
    """Where a broker's requests are counted."""
    parts = urlsplit(broker.url)
    return parts.hostname or "", parts.port or _PORT


class RequestCounter:
    """Counts from 0 in each process; a forked one begins anew."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Place] = Counter()
        self._told: Counter[Place] = Counter()

    def add(self, place: Place, requests: int) -> None:
        with self._lock:
            self._counts[place] += requests

    def total(self, place: Place) -> int:
        return self._counts[place]

    def take(self, place: Place) -> int:
        """Those that nobody was told of yet; the caller tells, or gives them back."""
        with self._lock:
            requests = self._counts[place] - self._told[place]
            self._told[place] = self._counts[place]
            return requests

    def give_back(self, place: Place, requests: int) -> None:
        """They could not be told."""
        with self._lock:
            self._told[place] -= requests

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._counts.clear()
        self._told.clear()


#: Brokers that are told, with scripts that run anyway, how much this process has asked of them.
_told_places: set[Place] = set()
#: This process's; it counts from the first call of `count_requests`.
requests = RequestCounter()
_is_counting = False


def count_requests() -> None:
    """Count from now on; safe to repeat."""
    global _is_counting  # noqa: PLW0603 - classes of a library are wrapped once in a process
    if _is_counting:
        return
    _is_counting = True
    from redis.asyncio import connection as asynchronous  # noqa: PLC0415 - who counts nothing
    from redis.connection import AbstractConnection  # noqa: PLC0415 - need not load it

    _wrap(AbstractConnection, "send_command", lambda _arguments: 1)
    _wrap(AbstractConnection, "pack_commands", lambda arguments: len(arguments[0]))
    # Here `pack_commands` itself calls the other one.
    _wrap(asynchronous.AbstractConnection, "pack_command", lambda _arguments: 1)
    os.register_at_fork(after_in_child=requests.forget)


def tell(broker: Broker) -> None:
    """Have a broker told of this process's requests; for producers, of whom nobody else knows."""
    count_requests()
    _told_places.add(place_of(broker))


@contextmanager
def told(client: redis.Redis) -> Iterator[int]:
    """Requests to tell the client's broker of; those that an error interrupts are told later."""
    kwargs = client.connection_pool.connection_kwargs
    place = (str(kwargs.get("host")), int(kwargs.get("port") or _PORT))
    if place not in _told_places:
        yield 0
        return
    taken = requests.take(place)
    try:
        yield taken
    except BaseException:
        requests.give_back(place, taken)
        raise


def expose(broker: Broker) -> None:
    """Show this process's requests among its Prometheus metrics, for the scaler to read."""
    from prometheus_client import REGISTRY  # noqa: PLC0415 - for Flower only
    from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    count_requests()
    place = place_of(broker)

    class Requests(Collector):
        def collect(self) -> Iterator[CounterMetricFamily]:
            family = CounterMetricFamily(
                "swarm_broker_requests", "Requests to a metered broker.", labels=["process"]
            )
            family.add_metric([str(os.getpid())], requests.total(place))
            yield family

    REGISTRY.register(Requests())


def _wrap(connection_class: Any, name: str, count: Any) -> None:
    method = getattr(connection_class, name)

    @wraps(method)
    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        if name == "pack_commands":
            arguments = (list(arguments[0]), *arguments[1:])
        if (host := getattr(self, "host", None)) is not None:
            requests.add((host, int(self.port)), count(arguments))
        return method(self, *arguments, **options)

    setattr(connection_class, name, counted)

"""What operators may tell the scaler and ask of it: checked, carried out, answered in sentences.

It decides nothing about instances: an order is an input of the next turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.errors import ConfigError, ScalerAwayError
from swarm.problems import problems_of
from swarm.scaler import prospect
from swarm.scaler.explain import as_values, explain
from swarm.scaler.model import Outcome
from swarm.scaler.orders import Order, OrderKind
from swarm.scaler.overview import overview
from swarm.settings import MAX_INSTANCE_NUMBER, Settings

#: What an order lasts when nobody says, and the longest that one may: what is to last longer
#: belongs into config.yaml.
DEFAULT_FOR_S = 3600.0
LONGEST_FOR_S = 7 * 86400.0

_PAUSES = (OrderKind.PAUSE_IN, OrderKind.PAUSE_OUT)

Answer = Mapping[str, Any]
"""The reply's own fields: `lines` for people, and the same as values."""
Duration = Annotated[float, Field(gt=0, le=LONGEST_FOR_S)]


class OrderKeeper(Protocol):
    """Keeps orders for as long as they hold."""

    @property
    def problem(self) -> str | None:
        """Why a restart would not know the orders as they are; None if it would."""
        ...

    def standing(self) -> tuple[Order, ...]:
        """Those that hold now."""
        ...

    def give(self, order: Order) -> None:
        """It holds from now on, in place of an earlier one for the same."""
        ...

    def withdraw(self, *keys: tuple[object, ...]) -> tuple[Order, ...]:
        """Those of them that held until now."""
        ...


class _Request(BaseModel):
    """What comes with a verb; here nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Pause(_Request):
    for_s: Duration = DEFAULT_FOR_S


class _Set(_Request):
    pool: str
    instances: Annotated[int, Field(ge=0)] | Literal["auto"]
    for_s: Duration = DEFAULT_FOR_S


class _Host(_Request):
    host: str


class _Instance(_Request):
    host: str
    pool: str
    number: Annotated[int, Field(ge=1, le=MAX_INSTANCE_NUMBER)]


class _Explain(_Request):
    pool: str | None = None


class Control:
    """Answers one request after the other; the daemon tells it of each turn."""

    def __init__(
        self,
        settings: Settings,
        orders: OrderKeeper,
        *,
        clock: Callable[[], float],
        on_order: Callable[[], None],
    ) -> None:
        """`clock` gives Unix time; `on_order` brings the next turn."""
        self._settings, self._orders = settings, orders
        self._clock, self._on_order = clock, on_order
        self._outcome: Outcome | None = None
        self._verbs: Mapping[str, tuple[type[_Request], Callable[[Any, str], Answer]]] = {
            "pause": (_Pause, partial(self._pause, _PAUSES)),
            "pause-in": (_Pause, partial(self._pause, (OrderKind.PAUSE_IN,))),
            "pause-out": (_Pause, partial(self._pause, (OrderKind.PAUSE_OUT,))),
            "resume": (_Request, self._resume),
            "set": (_Set, self._set),
            "drain": (_Host, self._drain),
            "undrain": (_Host, self._undrain),
            "pin": (_Instance, self._pin),
            "unpin": (_Instance, self._unpin),
            "status": (_Request, self._status),
            "explain": (_Explain, self._explain),
        }

    def configure(self, settings: Settings) -> None:
        """Go on with other hosts."""
        self._settings = settings

    def saw(self, outcome: Outcome) -> None:
        """The last turn."""
        self._outcome = outcome

    def answer(self, verb: str, fields: Mapping[str, Any], by: str) -> Answer:
        """Do what `by` asks, a user's name.

        Raises:
            ConfigError: it cannot be asked so; nothing was changed.
        ScalerAwayError: it is not known yet.
        """
        if verb not in self._verbs:
            raise ConfigError.of("verb", repr(verb), f"one of {', '.join(self._verbs)}")
        model, handle = self._verbs[verb]
        try:
            request = model.model_validate(dict(fields))
        except ValidationError as exc:
            raise ConfigError(list(problems_of(exc))) from exc
        return handle(request, by)

    def _pause(self, kinds: tuple[OrderKind, ...], request: _Pause, by: str) -> Answer:
        now = self._clock()
        orders = [Order(kind, by, now, now + request.for_s) for kind in kinds]
        return self._give(orders, [prospect.of_pause(kinds)])

    def _resume(self, _request: _Request, by: str) -> Answer:
        pauses = [Order(kind, by, 0.0) for kind in _PAUSES]
        return self._withdraw(pauses, otherwise="scaling is not paused")

    def _set(self, request: _Set, by: str) -> Answer:
        pool, count, now = request.pool, request.instances, self._clock()
        if count == "auto":
            order = Order(OrderKind.SET, by, now, pool=pool, instances=0)
            if not self._holds(order):
                self._pool(pool)
            return self._withdraw([order], otherwise=f"{pool} is not held")
        self._pool(pool)
        most = self._most(pool)
        if count > most:
            expected = f"at most {most}, as max_instances and the pool's hosts allow"
            raise ConfigError.of("N", str(count), expected)
        order = Order(OrderKind.SET, by, now, now + request.for_s, pool=pool, instances=count)
        standing = self._orders.standing()
        way = prospect.of_set(pool, count, self._outcome, standing)
        return self._give([order], way)

    def _most(self, pool: str) -> int:
        hosts = self._settings.hosts.values()
        places = sum(host.max_instances for host in hosts if host.serves(pool))
        return min(places, self._settings.pools[pool].max_instances)

    def _drain(self, request: _Host, by: str) -> Answer:
        order = Order(OrderKind.DRAIN, by, self._clock(), host=self._host(request.host))
        standing = self._orders.standing()
        way = prospect.of_drain(request.host, self._settings, self._outcome, standing)
        return self._give([order], way)

    def _undrain(self, request: _Host, by: str) -> Answer:
        order = Order(OrderKind.DRAIN, by, self._clock(), host=request.host)
        if not self._holds(order):
            self._host(request.host)
        return self._withdraw([order], otherwise=f"{request.host} is not drained")

    def _pin(self, request: _Instance, by: str) -> Answer:
        host, pool = self._host(request.host), self._pool(request.pool)
        order = self._pin_of(request, by)
        if not self._settings.hosts[host].serves(pool):
            expected = f"a pool that hosts.{host}.pools names"
            raise ConfigError.of("POOL", repr(pool), expected)
        return self._give([order], prospect.of_pin(order, self._outcome))

    def _unpin(self, request: _Instance, by: str) -> Answer:
        order = self._pin_of(request, by)
        if not self._holds(order):
            self._host(request.host)
            self._pool(request.pool)
        otherwise = f"celery-{request.pool}@{request.number} on {request.host} is not pinned"
        return self._withdraw([order], otherwise=otherwise)

    def _pin_of(self, request: _Instance, by: str) -> Order:
        return Order(
            OrderKind.PIN,
            by,
            self._clock(),
            pool=request.pool,
            host=request.host,
            number=request.number,
        )

    def _status(self, _request: _Request, _by: str) -> Answer:
        outcome, orders = self._seen(), self._orders.standing()
        return {
            "lines": [*overview(outcome, self._settings, orders), *self._problem()],
            "orders": [order.to_json() for order in orders],
            "pools": {name: asdict(each) for name, each in outcome.decisions.items()},
        }

    def _explain(self, request: _Explain, _by: str) -> Answer:
        outcome, scaler = self._seen(), self._settings.scaler
        names = self._settings.pools if request.pool is None else [self._pool(request.pool)]
        told = [(outcome.decisions[name], self._settings.pools[name]) for name in names]
        return {
            "lines": [line for each, pool in told for line in explain(each, pool, scaler)],
            "pools": {each.pool: as_values(each, pool, scaler) for each, pool in told},
        }

    def _seen(self) -> Outcome:
        if self._outcome is None:
            raise ScalerAwayError("no turn has ended yet: ask again in some seconds")
        return self._outcome

    def _give(self, orders: Iterable[Order], lines: Iterable[str]) -> Answer:
        orders, lines = list(orders), list(lines)
        for order in orders:
            self._orders.give(order)
        self._on_order()
        return {
            "lines": [*map(str, orders), *lines, *self._problem()],
            "orders": [order.to_json() for order in orders],
        }

    def _withdraw(self, orders: Iterable[Order], *, otherwise: str) -> Answer:
        withdrawn = self._orders.withdraw(*(order.key for order in orders))
        if withdrawn:
            self._on_order()
        lines = [f"no longer: {order}" for order in withdrawn] or [otherwise]
        return {
            "lines": [*lines, *self._problem()],
            "withdrawn": [order.to_json() for order in withdrawn],
        }

    def _holds(self, order: Order) -> bool:
        return any(each.key == order.key for each in self._orders.standing())

    def _problem(self) -> Iterator[str]:
        problem = self._orders.problem
        if problem is not None:
            yield f"this holds now, but a restart of the scaler would not know it: {problem}"

    def _pool(self, name: str) -> str:
        if name not in self._settings.pools:
            raise ConfigError.of("POOL", repr(name), f"one of {', '.join(self._settings.pools)}")
        return name

    def _host(self, name: str) -> str:
        if name not in self._settings.hosts:
            raise ConfigError.of("HOST", repr(name), f"one of {', '.join(self._settings.hosts)}")
        return name

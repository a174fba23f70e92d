"""What an operator has told the scaler, by whom and until when. Pure.

An order outlasts the scaler, so its times are Unix times; `adapters.order_book` keeps them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from swarm.scaler.limits import Orders, Override
from swarm.settings import Settings

VERSION = 1

Time = Annotated[float, Field(ge=0, le=1e11)]
Name = Annotated[str, Field(min_length=1, max_length=64)]


class OrderKind(StrEnum):
    """What an order is about; its subject is whom it is for."""

    PAUSE_IN = "pause-in"
    """Nothing is stopped. It is for all pools."""
    PAUSE_OUT = "pause-out"
    """Nothing is started. It is for all pools."""
    SET = "set"
    """A pool has so many instances."""
    DRAIN = "drain"
    """Nothing is started on a host, and what is there is stopped once it is idle."""
    PIN = "pin"
    """An instance is not stopped."""


@dataclass(frozen=True, slots=True)
class Order:
    """One of them. Of each kind there is one for a subject; a later one takes its place."""

    # The file may have been edited: nothing in it is believed unchecked.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: OrderKind
    by: Name
    """The user's name, as the kernel knows it."""
    given_at: Time
    until: Time | None = None
    """None for one that holds until it is withdrawn."""
    pool: Name | None = None
    host: Name | None = None
    number: Annotated[int, Field(ge=1, le=99)] | None = None
    instances: Annotated[int, Field(ge=0)] | None = None
    """How many, for `set`."""

    @property
    def key(self) -> tuple[object, ...]:
        """Whom it is for."""
        return (self.kind, self.pool, self.host, self.number)

    @property
    def subject(self) -> str:
        """The same for people and labels: `browser`, `worker1`, `worker1 browser 3`, or empty."""
        parts = (self.host, self.pool, self.number)
        return " ".join(str(part) for part in parts if part is not None)

    @property
    def what(self) -> str:
        """`scaling in is paused`, `browser is held at 4`."""
        match self.kind:
            case OrderKind.PAUSE_IN:
                return "scaling in is paused"
            case OrderKind.PAUSE_OUT:
                return "scaling out is paused"
            case OrderKind.SET:
                return f"{self.pool} is held at {self.instances}"
            case OrderKind.DRAIN:
                return f"{self.host} is drained"
            case OrderKind.PIN:
                return f"celery-{self.pool}@{self.number} on {self.host} is pinned"

    @property
    def whose(self) -> str:
        """`by anna until 2026-03-01 14:30 UTC`."""
        if self.until is None:
            return f"by {self.by} since {show_time(self.given_at)}"
        return f"by {self.by} until {show_time(self.until)}"

    def __str__(self) -> str:
        return f"{self.what} {self.whose}"

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, document: object) -> Order:
        """Raises `ValueError` when it is none."""
        try:
            order = _ADAPTER.validate_python(document)
        except ValidationError as exc:
            wrong = ", ".join(".".join(map(str, each["loc"])) or "(all)" for each in exc.errors())
            raise ValueError(f"wrong {wrong}") from exc
        given = {name for name in _SUBJECTS if getattr(order, name) is not None}
        if given != _SUBJECT[order.kind]:
            raise ValueError(f"a {order.kind} for {', '.join(sorted(given)) or 'nobody'}")
        return order


_ADAPTER = TypeAdapter(Order)
_SUBJECTS = ("pool", "host", "number", "instances")
_SUBJECT = {
    OrderKind.PAUSE_IN: set[str](),
    OrderKind.PAUSE_OUT: set[str](),
    OrderKind.SET: {"pool", "instances"},
    OrderKind.DRAIN: {"host"},
    OrderKind.PIN: {"host", "pool", "number"},
}


def in_force(orders: Collection[Order], settings: Settings) -> Orders:
    """What they come to for the pools and hosts that there are; of others they keep silent."""
    overrides: dict[str, list[Override]] = {name: [] for name in settings.pools}
    for order in orders:
        match order.kind:
            case OrderKind.PAUSE_IN | OrderKind.PAUSE_OUT:
                stops = order.kind is OrderKind.PAUSE_IN
                pause = Override(order.whose, no_starts=not stops, no_stops=stops)
                for each in overrides.values():
                    each.append(pause)
            case OrderKind.SET if order.pool in overrides:
                # config.yaml may say less than when it was given.
                most = settings.pools[order.pool].max_instances
                count = min(order.instances or 0, most)
                held = Override(f"set {order.whose}", minimum=count, maximum=count, spare=0)
                overrides[order.pool].append(held)
    return Orders(
        {pool: tuple(each) for pool, each in overrides.items() if each},
        pinned=frozenset(
            (order.host, order.pool, order.number)
            for order in orders
            if order.host is not None and order.pool is not None and order.number is not None
        ),
        drained=frozenset(
            order.host
            for order in orders
            if order.kind is OrderKind.DRAIN and order.host in settings.hosts
        ),
    )


def show_time(at: float) -> str:
    """Unix time for people."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def with_order(orders: Iterable[Order], order: Order) -> tuple[Order, ...]:
    """With this one, in place of an earlier one for the same."""
    return (*without(orders, order.key), order)


def without(orders: Iterable[Order], *keys: tuple[object, ...]) -> tuple[Order, ...]:
    """All but those for these."""
    return tuple(order for order in orders if order.key not in keys)


def postponed(orders: Iterable[Order], seconds: float) -> tuple[Order, ...]:
    """The same ones after the clock was set forward by so much, or back."""
    return tuple(
        replace(
            order,
            given_at=max(0.0, order.given_at + seconds),
            until=None if order.until is None else max(0.0, order.until + seconds),
        )
        for order in orders
    )

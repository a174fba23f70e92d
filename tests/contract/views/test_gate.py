"""A metered broker is closed to producers and opened, with the rights of the user `scaler`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from swarm.brokers import Broker
from swarm.delivery import keys
from swarm.delivery.outcome import Successor
from swarm.delivery.publish import RefusedError, publish
from swarm.scaler.adapters import broker as adapter
from swarm.scaler.adapters.broker import RedisView
from tests.loopback import free_port
from tests.role_redis import RoleRedis

TASK = Successor("analysis", '{"properties": {"delivery_tag": "t"}}', "", "t")
MakeView = Callable[..., RedisView]
RESET = datetime.now(UTC) + timedelta(days=3)


@pytest.fixture
def producer(role_redis: RoleRedis) -> Iterator[redis.Redis]:
    with role_redis.connect("producer") as producer:
        yield producer


async def test_producers_are_sent_away_and_let_in_again(
    admin: redis.Redis, producer: redis.Redis, make_view: MakeView
) -> None:
    gate = make_view()
    await gate.close_to_producers("the rest is for what is queued", RESET.timestamp())
    with pytest.raises(RefusedError, match="the rest is for what is queued"):
        publish(producer, TASK, tag="t")
    await gate.open_to_producers()
    publish(producer, TASK, tag="t")
    assert admin.llen("analysis") == 1


async def test_it_opens_by_itself_at_the_reset_though_no_scaler_runs(
    admin: redis.Redis, make_view: MakeView
) -> None:
    await make_view().close_to_producers("why", RESET.timestamp())
    assert admin.expiretime(keys.CLOSED) == int(RESET.timestamp())


async def test_a_broker_that_is_away_is_an_error(make_view: MakeView) -> None:
    gate = make_view(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(redis.ConnectionError):
        await gate.open_to_producers()


async def test_whoever_resolves_its_name_keeps_no_turn_waiting(
    make_view: MakeView, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(_broker: Broker) -> Any:
        time.sleep(1.0)
        raise redis.ConnectionError("Temporary failure in name resolution")

    monkeypatch.setattr(adapter, "connect", connect)
    monkeypatch.setattr(adapter, "_TIMEOUT_S", 0.1)
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer in 0\.1 s"):
        await make_view("redis://hosted.example/0").close_to_producers("why", RESET.timestamp())
    assert time.monotonic() - started < 0.9

"""A view in memory, and one of a real Redis, which enters as the role's user `scaler`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import psutil
import pytest
import redis

from swarm.brokers import Broker
from swarm.delivery.survey import Rhythm
from swarm.scaler.adapters.broker import RedisView
from swarm.scaler.adapters.metrics import ScalerMetrics
from tests.builders import make_settings
from tests.contract.views.stage import (
    QUEUES,
    FakeRig,
    RedisRig,
    Rig,
)
from tests.role_redis import RoleRedis


@pytest.fixture
def admin(role_redis: RoleRedis) -> Iterator[redis.Redis]:
    with role_redis.connect("admin") as admin:
        admin.flushdb()
        admin.config_resetstat()
        yield admin


@pytest.fixture
def metrics() -> ScalerMetrics:
    return ScalerMetrics(make_settings())


@pytest.fixture
def make_view(role_redis: RoleRedis, metrics: ScalerMetrics) -> Callable[..., RedisView]:
    def make(url: str | None = None, *, alone: bool = True, **rhythm: float) -> RedisView:
        broker = Broker("primary", url or role_redis.url("scaler"))
        return RedisView(broker, QUEUES, Rhythm(**rhythm), metrics, alone=alone)

    return make


@pytest.fixture
async def view(admin: redis.Redis, make_view: Callable[..., RedisView]) -> AsyncIterator[RedisView]:
    async with make_view() as view:
        yield view


@pytest.fixture(params=["fake", "redis"])
def rig(
    request: pytest.FixtureRequest, view: RedisView, admin: redis.Redis, role_redis: RoleRedis
) -> Iterator[Rig]:
    if request.param == "fake":
        yield FakeRig()
        return
    assert role_redis.process is not None
    rig = RedisRig(view, admin, psutil.Process(role_redis.process.pid))
    yield rig
    rig.find()

"""A real Redis for the scripts, empty before each test."""

from __future__ import annotations

from collections.abc import Iterator

import kombu
import pytest
import redis

from swarm.delivery.transport import register
from tests.loopback import REDIS, RedisServer
from tests.programs import need


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need(REDIS, "redis-tools")
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[redis.Redis]:
    with server.connect() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
        yield client


@pytest.fixture
def plain_connection(server: RedisServer) -> Iterator[kombu.Connection]:
    """Our transport, for consumers that are no workers."""
    register()
    with kombu.Connection(server.url) as connection:
        yield connection

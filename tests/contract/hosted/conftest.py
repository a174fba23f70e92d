"""The stand-in for a hosted Redis, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis import Redis

from lab.hosted import Certificates, HostedRedis
from tests.hosted_client import connect
from tests.loopback import REDIS, RedisServer
from tests.programs import need


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need(REDIS, "redis-tools")
    with RedisServer(tmp_path_factory.mktemp("behind")) as server:
        yield server


@pytest.fixture
def service(behind: RedisServer, certificates: Certificates) -> Iterator[HostedRedis]:
    with behind.connect() as redis:
        redis.flushall()
        redis.script_flush()
    tls = certificates.server_context(ask_clients=False)
    with HostedRedis(("127.0.0.1", behind.port), tls=tls) as service:
        yield service


@pytest.fixture
def client(service: HostedRedis, certificates: Certificates) -> Iterator[Redis]:
    with connect(service, certificates) as redis:
        yield redis

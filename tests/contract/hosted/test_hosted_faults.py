"""The faults of the stand-in for a hosted Redis, as a client sees them."""

from __future__ import annotations

import socket
import time

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoScriptError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from lab.hosted import Certificates, HostedRedis
from tests.hosted_client import connect
from tests.loopback import RedisServer, wait_until


def test_a_slow_service_has_done_what_it_answers_late(
    client: Redis, service: HostedRedis, behind: RedisServer
) -> None:
    client.ping()
    service.set(slow_s=5)
    with pytest.raises(RedisTimeoutError):
        client.set("k", "v")
    with behind.connect() as redis:
        assert redis.get("k") == b"v"
    service.set(slow_s=0.2)
    begun = time.monotonic()
    assert client.ping()
    assert time.monotonic() - begun >= 0.2


def test_refused_means_no_connection_and_the_end_of_those_there_are(
    client: Redis, service: HostedRedis
) -> None:
    client.ping()
    service.reach("refused")
    for _ in range(2):
        with pytest.raises((RedisConnectionError, OSError)):
            client.ping()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port), timeout=1)
    service.reach("open")
    assert client.ping()


def test_a_black_hole_accepts_and_never_answers(
    client: Redis, service: HostedRedis, certificates: Certificates, behind: RedisServer
) -> None:
    client.ping()
    service.reach("silent")
    with pytest.raises(RedisTimeoutError):
        client.set("k", "v")
    with socket.create_connection(("127.0.0.1", service.port), timeout=1):
        pass
    with connect(service, certificates) as late, pytest.raises(RedisTimeoutError):
        late.ping()
    with behind.connect() as redis:
        assert redis.get("k") is None
    service.reach("open")
    assert client.ping()


def test_from_silent_to_refused_and_back(client: Redis, service: HostedRedis) -> None:
    service.reach("silent")
    service.reach("refused")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port), timeout=1)
    service.reach("silent")
    with pytest.raises(RedisTimeoutError):
        client.ping()
    service.heal()
    assert client.ping()


def test_a_reply_is_cut_in_the_middle_after_the_command_was_done(
    client: Redis, service: HostedRedis, behind: RedisServer
) -> None:
    client.ping()
    service.set(cuts=1)
    with pytest.raises(RedisConnectionError):
        client.set("k", "v")
    with behind.connect() as redis:
        assert redis.get("k") == b"v"
    assert client.get("k") == b"v"


def test_idle_connections_are_closed_blocked_ones_too(client: Redis, service: HostedRedis) -> None:
    client.ping()
    service.set(idle_s=0.3)
    with pytest.raises(RedisConnectionError):
        client.blpop(["nothing"], timeout=0.4)
    client.ping()
    wait_until(lambda: not service.state()["connections"], what="the end of the idle one")


def test_a_restart_forgets_scripts_and_keeps_data(client: Redis, service: HostedRedis) -> None:
    client.set("k", "v")
    sha = client.script_load("return redis.call('GET', 'k')")
    assert client.evalsha(sha, 0) == b"v"
    service.restart()
    assert client.ping()
    assert service.counts["AUTH"] == 2
    assert client.script_exists(sha) == [False]
    with pytest.raises(NoScriptError):
        client.evalsha(sha, 0)
    assert client.eval("return redis.call('GET', 'k')", 0) == b"v"
    assert client.evalsha(sha, 0) == b"v"

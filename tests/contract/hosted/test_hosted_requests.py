"""What the stand-in for a hosted Redis counts, refuses and passes on."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from redis.exceptions import (
    ExecAbortError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from lab.hosted import Certificates, HostedRedis
from tests.hosted_client import LIMIT_TEXT, connect
from tests.loopback import RedisServer, wait_until


def set_both(client: Redis) -> list[Any]:
    """Two writes in a transaction: four requests."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("a", 1)
        pipeline.set("b", 2)
        return pipeline.execute()


def test_every_command_is_a_request(client: Redis, service: HostedRedis) -> None:
    client.ping()
    set_both(client)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.get("a")
        pipeline.get("b")
        pipeline.execute()
    client.eval("for i = 1, 9 do redis.call('INCR', 'n') end return 1", 0)
    assert service.counts == {
        "AUTH": 1,
        "PING": 1,
        "MULTI": 1,
        "SET": 2,
        "EXEC": 1,
        "GET": 2,
        "EVAL": 1,
    }
    assert service.used == 9


def test_at_the_limit_every_command_has_an_error_and_the_connection_stays(
    client: Redis, service: HostedRedis, certificates: Certificates
) -> None:
    client.set("k", "before")
    service.reach_limit()
    text = LIMIT_TEXT.format(service.used)
    for _ in range(2):
        with pytest.raises(ResponseError, match=text):
            client.get("k")
    # Nor can anybody else enter.
    with (
        connect(service, certificates) as late,
        pytest.raises(ResponseError, match="limit exceeded"),
    ):
        late.ping()
    service.set(limit=None)
    assert client.get("k") == b"before"
    assert service.counts["AUTH"] == 1


def test_the_limit_falls_between_the_commands_of_a_pipeline(
    client: Redis, service: HostedRedis
) -> None:
    client.ping()
    service.reach_limit(after=2)
    with client.pipeline(transaction=False) as pipeline:
        for name in ("a", "b", "c"):
            pipeline.set(name, 1)
        a, b, c = pipeline.execute(raise_on_error=False)
    assert (a, b) == (True, True)
    assert LIMIT_TEXT.format(service.used) in str(c)
    service.set(limit=None)
    assert client.mget("a", "b", "c") == [b"1", b"1", None]


@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_transaction_that_meets_the_limit_changes_nothing(
    client: Redis, service: HostedRedis, after: int
) -> None:
    client.ping()
    service.reach_limit(after=after)
    with pytest.raises(ResponseError):
        set_both(client)
    service.set(limit=None)
    assert client.mget("a", "b") == [None, None]
    assert set_both(client) == [True, True]


@pytest.mark.parametrize(
    "command",
    [
        "OBJECT ENCODING k",
        "SLOWLOG GET",
        "CLIENT KILL TYPE normal",
        "CLIENT NO-EVICT ON",
        "SORT l",
        "SELECT 1",
        "CONFIG SET maxmemory 1",
        "COMMAND COUNT",
        "SHUTDOWN NOSAVE",
    ],
)
def test_what_the_service_does_not_offer_is_refused(client: Redis, command: str) -> None:
    with pytest.raises(ResponseError):
        client.execute_command(*command.split())  # type: ignore[no-untyped-call]
    assert client.ping()


def test_a_transaction_with_a_refused_command_is_none(client: Redis) -> None:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("k", "v")
        pipeline.slowlog_get()
        with pytest.raises((ExecAbortError, ResponseError)):
            pipeline.execute()
    assert client.get("k") is None


def test_what_is_published_reaches_subscribers(client: Redis, service: HostedRedis) -> None:
    pubsub = client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    with pubsub:
        pubsub.psubscribe("news.*")
        assert pubsub.get_message(timeout=1) is None
        client.publish("news.today", "hello")
        message = wait_until(lambda: pubsub.get_message(timeout=0.1), what="the news")
        assert message["data"] == b"hello"


def test_a_client_that_dies_while_it_waits_takes_nothing(
    client: Redis, service: HostedRedis, certificates: Certificates, behind: RedisServer
) -> None:
    with connect(service, certificates, timeout_s=0.2) as waiting, pytest.raises(RedisTimeoutError):
        waiting.blpop(["bell"], timeout=60)
    with behind.connect() as redis:
        wait_until(lambda: redis.info("clients")["blocked_clients"] == 0, what="its end")
    client.rpush("bell", "ring")
    assert client.llen("bell") == 1

"""Who enters the stand-in for a hosted Redis, by certificates and passwords."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import (
    AuthenticationError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from lab.hosted import Certificates, HostedRedis, make_certificates
from tests.hosted_client import connect
from tests.loopback import PASSWORD, RedisServer


def test_a_client_with_the_authority_and_the_password_finds_a_redis(client: Redis) -> None:
    value = os.urandom(300_000)
    assert client.set("k", value)
    assert client.get("k") == value
    with client.pipeline(transaction=False) as pipeline:
        pipeline.rpush("l", "1", "2")
        pipeline.lrange("l", 0, -1)
        pipeline.get("none")
        replies = pipeline.execute()
    assert replies == [2, [b"1", b"2"], None]


def test_without_the_authority_the_certificate_is_refused(
    service: HostedRedis, certificates: Certificates, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path / "other")
    for client in (
        connect(service, certificates, ssl_ca_certs=other.authority),
        Redis.from_url(service.url("", PASSWORD), retry=None),
    ):
        with client, pytest.raises(RedisConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            client.ping()


def test_a_certificate_for_another_name_is_refused(behind: RedisServer, tmp_path: Path) -> None:
    elsewhere = make_certificates(tmp_path, ["DNS:elsewhere.example"])
    tls = elsewhere.server_context(ask_clients=False)
    with (
        HostedRedis(("127.0.0.1", behind.port), tls=tls) as service,
        connect(service, elsewhere) as client,
        pytest.raises(RedisConnectionError, match=r"not valid for '127\.0\.0\.1'"),
    ):
        client.ping()


def test_where_clients_need_a_certificate_one_without_is_turned_away(
    behind: RedisServer, certificates: Certificates
) -> None:
    tls = certificates.server_context(ask_clients=True)
    with HostedRedis(("127.0.0.1", behind.port), tls=tls) as service:
        with (
            connect(service, certificates) as client,
            pytest.raises(RedisConnectionError, match=r"(?i)certificate.required"),
        ):
            client.ping()
        with connect(
            service,
            certificates,
            ssl_certfile=certificates.client,
            ssl_keyfile=certificates.client_key,
        ) as client:
            assert client.ping()


def test_passwords_are_those_of_the_redis_behind_it(
    service: HostedRedis, certificates: Certificates
) -> None:
    with (
        connect(service, certificates, password="wrong") as client,
        pytest.raises(AuthenticationError),
    ):
        client.ping()

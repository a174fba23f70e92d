"""What a client sees of the stand-in for a hosted Redis: the service's ways, and its faults."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    ExecAbortError,
    NoScriptError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from lab.hosted import Certificates, HostedRedis, make_certificates
from lab.hosted.__main__ import main
from lab.hosted.control import Control, ask
from tests.loopback import PASSWORD, REDIS, RedisServer, wait_until
from tests.programs import need

LIMIT_TEXT = "max requests limit exceeded. Limit: {0}, Usage: {0}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


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


def connect(
    service: HostedRedis,
    certificates: Certificates,
    *,
    password: str = PASSWORD,
    timeout_s: float = 0.5,
    **parameters: object,
) -> Redis:
    """Commands are counted as they are: nothing is tried again, nothing sent unasked."""
    parameters = {"ssl_ca_certs": certificates.authority, **parameters}
    return Redis.from_url(
        service.url("", password, **parameters),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=None,
        protocol=2,
        driver_info=None,
    )


def set_both(client: Redis) -> list[Any]:
    """Two writes in a transaction: four requests."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("a", 1)
        pipeline.set("b", 2)
        return pipeline.execute()


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


def test_the_switches_over_http(service: HostedRedis, capsys: pytest.CaptureFixture[str]) -> None:
    with Control(service) as control:
        there = ["--control", control.url]
        assert main(["set", *there, "limit=10", "used=10", "slow_s=0.5", "reach=silent"]) == 0
        state = ask(control.url)
        assert (state["limit"], state["used"], state["slow_s"]) == (10, 10, 0.5)
        assert state["reach"] == "silent"
        assert main(["set", *there, "limit=none"]) == 0
        assert main(["heal", *there]) == 0
        assert main(["restart", *there]) == 0
        assert main(["show", *there]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1]) == ask(control.url)
        for wrong in ("slow=5", "slow_s=-1", "reach=away", "cuts=1.5"):
            assert main(["set", *there, wrong]) == 2
            assert capsys.readouterr().err.startswith("lab.hosted: ")
    assert main(["show", *there]) == 1


def test_the_program_serves_until_it_is_stopped(behind: RedisServer, tmp_path: Path) -> None:
    words = ["serve", f"127.0.0.1:{behind.port}", "--certificates", str(tmp_path / "c")]
    with subprocess.Popen(
        [sys.executable, "-m", "lab.hosted", *words, "--control-port", "0", "--limit", "2"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            place, _, control = process.stdout.readline().split()
            url = (
                place.replace("://", f"://:{PASSWORD}@")
                + f"?ssl_ca_certs={tmp_path}/c/authority.pem"
            )
            with Redis.from_url(url, retry=None, protocol=2, driver_info=None) as client:
                assert client.ping()
                with pytest.raises(ResponseError, match=LIMIT_TEXT.format(2)):
                    client.ping()
            assert ask(control)["used"] == 2
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0

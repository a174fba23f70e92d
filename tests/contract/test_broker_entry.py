"""Entering a broker over real TLS: what `swarm brokers` says when it is refused, and to whom."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.hosted import Certificates, HostedRedis, make_certificates
from swarm.brokers import ask, parse_broker
from swarm.cli import main
from tests.loopback import PASSWORD, REDIS, RedisServer
from tests.programs import need


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need(REDIS, "redis-tools")
    with RedisServer(tmp_path_factory.mktemp("behind")) as server:
        with server.connect() as redis:
            redis.acl_setuser("worker", enabled=True, passwords=["+w"], categories=["+@all"])
        yield server


@pytest.fixture(scope="module")
def service(behind: RedisServer, certificates: Certificates) -> Iterator[HostedRedis]:
    """It asks for a client's certificate, which most URLs here give."""
    tls = certificates.server_context(ask_clients=True)
    with HostedRedis(("127.0.0.1", behind.port), tls=tls) as service:
        yield service


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tell:
    return Tell(monkeypatch, capsys)


class Tell:
    """`swarm brokers` with these variables: its exit status, and what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str, **environ: str) -> tuple[int, str, str]:
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)
        self._monkeypatch.setattr(sys, "argv", ["swarm", "brokers", *words])
        status = 0
        try:
            main()
        except SystemExit as exc:
            status = int(exc.code or 0)
        out, err = self._capsys.readouterr()
        return status, out, err


def url(
    service: HostedRedis,
    certificates: Certificates,
    user: str = "",
    password: str = PASSWORD,
    **parameters: object,
) -> str:
    own = {
        "ssl_ca_certs": certificates.authority,
        "ssl_certfile": certificates.client,
        "ssl_keyfile": certificates.client_key,
    }
    given = {name: value for name, value in (own | parameters).items() if value is not None}
    return service.url(user, password, **given)


def test_with_everything_both_brokers_are_well(
    service: HostedRedis, certificates: Certificates, behind: RedisServer, tell: Tell
) -> None:
    before = service.used
    status, out, err = tell(
        "--json",
        REDIS_URL=url(service, certificates, "worker", "w"),
        REDIS_FALLBACK_URL=behind.url,
        REDIS_FALLBACK_ENABLED="true",
    )
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert [told[name]["state"] for name in ("primary", "fallback")] == ["ok", "ok"]
    assert PASSWORD not in out
    assert service.used - before == 2


def test_each_refusal_names_the_variable_and_what_it_needs(
    service: HostedRedis, certificates: Certificates, tmp_path: Path, tell: Tell
) -> None:
    other = make_certificates(tmp_path)
    wrong = {
        "authority": url(service, certificates, ssl_ca_certs=other.authority),
        "ssl_ca_certs=FILE": url(service, certificates, ssl_ca_certs=None),
        "ssl_certfile=FILE": url(service, certificates, ssl_certfile=None, ssl_keyfile=None),
        "it asks for one": url(
            service, certificates, ssl_certfile=other.client, ssl_keyfile=other.client_key
        ),
        "password of a user": url(service, certificates, password="hunter2"),
        "name and the password": url(service, certificates, "nobody"),
    }
    for expected, broker_url in wrong.items():
        status, out, err = tell(REDIS_URL=broker_url)
        assert status == 2, (expected, out, err)
        assert out.startswith("primary: refused"), out
        assert err.startswith("swarm: REDIS_URL: got rediss://127.0.0.1"), err
        assert expected in err
        assert "hunter2" not in out + err
        assert PASSWORD not in out + err


def test_a_certificate_for_another_name(behind: RedisServer, tmp_path: Path, tell: Tell) -> None:
    elsewhere = make_certificates(tmp_path, ["DNS:elsewhere.example"])
    tls = elsewhere.server_context(ask_clients=False)
    with HostedRedis(("127.0.0.1", behind.port), tls=tls) as service:
        status, _, err = tell(REDIS_URL=service.url("", PASSWORD, ssl_ca_certs=elsewhere.authority))
    assert status == 2
    assert "not valid for '127.0.0.1'" in err


def test_tls_where_none_is_spoken_looks_like_a_broker_that_breaks_off(
    behind: RedisServer, tell: Tell
) -> None:
    status, out, err = tell(REDIS_URL=behind.url.replace("redis://", "rediss://"))
    assert status == 3
    assert out.startswith("primary: down")
    assert err.startswith("swarm: REDIS_URL: rediss://127.0.0.1")


def test_the_fallback_is_named_too(behind: RedisServer, tell: Tell) -> None:
    status, _, err = tell(
        REDIS_URL=behind.url,
        REDIS_FALLBACK_URL=f"redis://:hunter2@localhost:{behind.port}/0",
        REDIS_FALLBACK_ENABLED="true",
    )
    assert status == 2
    assert err.startswith("swarm: REDIS_FALLBACK_URL: got redis://localhost")


def test_faults_are_told_apart(behind: RedisServer, tell: Tell) -> None:
    with HostedRedis(("127.0.0.1", behind.port)) as service:
        broker = parse_broker("primary", service.url("", PASSWORD), variable="REDIS_URL")
        assert ask(broker)[0].state == "ok"
        service.reach("refused")
        verdict, _ = ask(broker)
        assert (verdict.state, verdict.uncertain) == ("down", False)
        service.heal()
        service.set(cuts=2)
        verdict, _ = ask(broker)
        assert (verdict.state, verdict.uncertain) == ("down", True)
        service.heal()
        service.set(slow_s=5)
        verdict, _ = ask(broker)
        assert (verdict.state, verdict.uncertain) == ("slow", True)
        service.heal()
        service.reach_limit()
        assert ask(broker)[0].state == "limited"
        status, out, err = tell(REDIS_URL=broker.url)
        assert status == 3
        assert out.startswith("primary: limited")
        assert "REDIS_URL" in err
        assert "max requests limit exceeded" in err


def test_a_black_hole_is_slow_without_tls_and_down_with_it(
    behind: RedisServer, certificates: Certificates
) -> None:
    tls = certificates.server_context(ask_clients=False)
    for context, state in ((None, "slow"), (tls, "down")):
        with HostedRedis(("127.0.0.1", behind.port), tls=context) as service:
            service.reach("silent")
            parameters = {"ssl_ca_certs": certificates.authority} if context else {}
            broker = parse_broker(
                "primary", service.url("", PASSWORD, **parameters), variable="REDIS_URL"
            )
            assert ask(broker)[0].state == state

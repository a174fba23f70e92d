"""Redis URLs: verified TLS by default, and no password in any message."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.brokers import Broker, parse_broker
from swarm.errors import ConfigError


def parse(url: str) -> Broker:
    return parse_broker("primary", url, variable="REDIS_URL")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://:secret@10.0.0.1:6379/0",
        "redis://user:secret@redis.example.org/15",
        "redis://[fd00::1]:6379/0",
    ],
)
def test_a_good_url_is_kept(url: str) -> None:
    assert parse(url).url == url
    assert parse(f"  {url}\n").url == url


def test_the_address_shows_neither_user_nor_password() -> None:
    broker = parse("redis://someone:secret@redis.example.org/3")
    assert broker.address == "redis://redis.example.org:6379"
    assert repr(broker) == "Broker(primary, redis://redis.example.org:6379)"


def test_tls_is_verified_unless_told() -> None:
    query = parse_qs(urlsplit(parse("rediss://:secret@h:6380/0?ssl_ca_certs=/ca.pem").url).query)
    assert query == {"ssl_ca_certs": ["/ca.pem"], "ssl_cert_reqs": ["required"]}
    assert parse("rediss://h?ssl_cert_reqs=CERT_REQUIRED").url.endswith("CERT_REQUIRED")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://user:hunter2@h", "redis://[USER:PASSWORD@]HOST"),
        ("h:6379", "redis://[USER:PASSWORD@]HOST"),
        ("hunter2", "redis://[USER:PASSWORD@]HOST"),
        ("redis://", "redis://[USER:PASSWORD@]HOST"),
        ("redis://:hunter2@", "redis://[USER:PASSWORD@]HOST"),
        ("redis://:hunter2@h:port", "a port from 1 to 65535"),
        ("redis://:hunter2@h:70000", "a port from 1 to 65535"),
        ("redis://:hunter2@h/zero", "a database number"),
        ("redis://:hunter2@h/0/1", "a database number"),
        ("redis://:hunter2@[::1/0", "redis://[USER:PASSWORD@]HOST"),
        ("redis://:hunter2@h/0?password=hunter2&ssl_cert_reqs=none", "ssl_cert_reqs=required"),
        ("rediss://:hunter2@h?ssl_cert_reqs=none", "ssl_cert_reqs=required"),
        ("rediss://:hunter2@h?ssl_cert_reqs=CERT_NONE", "ssl_cert_reqs=required"),
        ("rediss://:hunter2@h?ssl_cert_reqs=optional", "ssl_cert_reqs=required"),
        # Passwords with characters that must be escaped and were not.
        ("redis://:hunter2/x@h/0", "redis://[USER:PASSWORD@]HOST"),
        ("redis://:hunter2#x@h/0", "redis://[USER:PASSWORD@]HOST"),
        ("redis://:hunter2?x@h/0", "redis://[USER:PASSWORD@]HOST"),
        ("redis://u:6379/hunter2@h/0", "a database number"),
    ],
)
def test_a_wrong_url_says_what_was_expected_and_hides_the_password(url: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(url)
    [problem] = caught.value.problems
    assert problem.where == "REDIS_URL"
    assert expected in problem.expected
    assert "hunter2" not in str(caught.value)


@given(
    st.sampled_from(["redis://", "rediss://", "amqp://", "", "redis:/"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["h", "h:1", "h:x", "[::1", "", "h/0", "h/x", "h?ssl_cert_reqs=none"]),
)
def test_whatever_the_url_it_is_taken_or_refused_without_its_password(
    scheme: str, noise: str, rest: str
) -> None:
    url = f"{scheme}:PASS{noise}WORD@{rest}"
    try:
        broker = parse(url)
    except ConfigError as exc:
        shown = str(exc)
    else:
        shown = repr(broker)
    assert "PASS" not in shown.replace("USER:PASSWORD@", "").replace(":PASSWORD@HOST", "")

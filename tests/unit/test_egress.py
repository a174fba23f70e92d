from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network

import pytest
import yaml

from swarm.browse.egress import refusal, refusal_of_tunnel
from swarm.browse.errors import ErrorCode
from tests.role_egress import ROLE, render_egress

_VARS = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))
NOT_GLOBAL = [
    ip_network(text) for text in _VARS["__egress_not_global_v4"] + _VARS["__egress_not_global_v6"]
]


def is_refused(text: str) -> bool:
    address = ip_address(text)
    return any(address in net for net in NOT_GLOBAL if net.version == address.version)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("ERR_ACCESS_DENIED 0", ErrorCode.URL_BLOCKED),
        ("ERR_DNS_FAIL 0", ErrorCode.DNS),
        ("503:ERR_DNS_FAIL 0", ErrorCode.DNS),
        ("ERR_CONNECT_FAIL 111", ErrorCode.NAVIGATION),
    ],
)
def test_the_proxys_own_answers_have_their_codes(header: str, code: ErrorCode) -> None:
    error = refusal({"x-squid-error": header}, "http://host.test/", stage="navigation")
    assert error is not None
    assert error.code is code
    assert "host.test" in error.message


def test_an_answer_of_the_pages_server_is_none_of_the_proxys() -> None:
    assert refusal({"server": "squid/5.7"}, "http://host.test/", stage="navigation") is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n", "URL_BLOCKED"),
        (b"HTTP/1.1 200 Connection established\r\n\r\n", None),
        (b"HTTP/1.1 403 Forb", None),
        (b"x" * 100_000, None),
        (b"", None),
    ],
)
async def test_a_tunnel_is_asked_for_once_more(answer: bytes, expected: str | None) -> None:
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        error = await refusal_of_tunnel(proxy, "https://me:pw@host.test/path?query", stage="s")
        await refusal_of_tunnel(proxy, "https://[2001:db8::1]:8443/", stage="s")
    assert (error.code if error else None) == expected
    assert asked[0].startswith(b"CONNECT host.test:443 HTTP/1.1\r\n")
    assert asked[1].startswith(b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n")


async def test_a_proxy_that_is_away_says_nothing() -> None:
    assert await refusal_of_tunnel("http://127.0.0.1:9", "https://host.test/", stage="s") is None


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0", "10.255.0.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.31.255.255",
        "192.0.0.8", "192.0.2.1", "192.168.0.1", "198.19.0.1", "203.0.113.9", "239.0.0.1",
        "255.255.255.255", "::", "::1", "::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1",
        "2001::1", "2001:db8::1", "2002:a00:1::", "3fff::1", "5f00::1", "fc00::1", "fe80::1",
        "fec0::1", "ff02::1",
    ],
)  # fmt: skip
def test_what_is_not_everybodys_is_on_the_list(text: str) -> None:
    assert is_refused(text)


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "2a00::1"])
def test_what_is_everybodys_is_not(text: str) -> None:
    assert not is_refused(text)


def test_all_that_is_no_global_unicast_is_on_the_list_but_for_ipv4() -> None:
    """IPv4 in IPv6 is IPv4 to squid: such a network would refuse the whole internet."""
    mapped = IPv6Network("::ffff:0:0/96")
    listed = [net for net in NOT_GLOBAL if isinstance(net, IPv6Network)]
    assert not any(net.overlaps(mapped) for net in listed)
    for first in range(0x10000):
        address = IPv6Address((first << 112) | (1 << 100))
        if address not in IPv6Network("2000::/3") and first != 0:
            assert any(address in net for net in listed), address


def test_allowed_targets_come_before_what_is_refused() -> None:
    text = render_egress("squid.conf.j2", egress_allowed=[{"address": "10.1.2.3", "port": 8080}])
    rules = [line for line in text.splitlines() if line.startswith("http_access")]
    assert rules.index("http_access allow allowed_1 allowed_1_port") < rules.index(
        "http_access deny not_global"
    )
    assert rules[-1] == "http_access allow all"

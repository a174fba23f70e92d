"""The packet filter as the role `egress` renders it; that it holds is for the lab to show."""

from __future__ import annotations

from typing import Any

from tests.role_egress import render_egress

BROKER = {"address": "10.1.2.3", "port": 6379}
STORE = {"address": "10.1.2.3", "port": 9480}
STORE6 = {"address": "fd00::3", "port": 9480}


def render(
    *, numbered: list[Any], named: tuple[str, ...] = (), allowed: list[Any] | None = None
) -> str:
    return render_egress(
        "egress.nft.j2",
        egress_allowed=allowed or [],
        __egress_numbered=numbered,
        __egress_named=list(named),
    )


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_destination_is_in_its_familys_set() -> None:
    text = words(render(numbered=[BROKER, STORE, STORE6]))
    assert "elements = { 10.1.2.3 . 6379, 10.1.2.3 . 9480 }" in text
    assert "elements = { fd00::3 . 9480 }" in text


def test_workers_ask_no_name_server_where_nothing_has_a_name() -> None:
    chain = render(numbered=[BROKER]).partition("chain worker")[2].partition("chain proxy")[0]
    assert "resolvers" not in chain
    named = render(numbered=[], named=("redis.example.net",))
    assert "resolvers4" in named.partition("chain worker")[2].partition("chain proxy")[0]


def test_what_is_allowed_comes_before_what_is_refused() -> None:
    text = words(render(numbered=[], allowed=[{"address": "10.9.0.0/16", "port": 443}]))
    chain = text.partition("chain proxy")[2]
    assert chain.index("ip daddr 10.9.0.0/16 tcp dport 443 accept") < chain.index("reject")

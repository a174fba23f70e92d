"""URLs as browsers read them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from swarm.browse.urls import host_of, literal_address, without_query


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1/", "127.0.0.1"),
        ("http://127.1/", "127.0.0.1"),
        ("http://0x7f.1/", "127.0.0.1"),
        ("http://0177.0.0.1/", "127.0.0.1"),
        ("http://2130706433/", "127.0.0.1"),
        ("http://0xa9fea9fe/", "169.254.169.254"),
        ("http://①②⑦.0.0.1/", "127.0.0.1"),
        ("http://10.0.0.1.:8080/", "10.0.0.1"),
        ("http://[::1]/", "::1"),
        ("http://[::ffff:10.0.0.1]/", "::ffff:10.0.0.1"),
        ("http:\\\\127.0.0.1\\x", "127.0.0.1"),
    ],
)
def test_an_address_is_known_in_whatever_notation(url: str, address: str) -> None:
    assert literal_address(url) == ip_address(address)


@pytest.mark.parametrize("url", ["http://example.org/", "http://127.0.0.1.example.org/", "x", ""])
def test_a_name_is_no_address(url: str) -> None:
    assert literal_address(url) is None


def test_a_host_is_in_its_canonical_form() -> None:
    assert host_of("http://EXA\u00adMPLE.org:80/x") == "example.org"
    assert host_of("http://b\u00fccher.example/") == "xn--bcher-kva.example"


@pytest.mark.parametrize(
    "url", ["http://h/p?token=1", "http://h/p#token", "http://h/p?a#b", "http://h/p"]
)
def test_queries_and_fragments_are_not_logged(url: str) -> None:
    assert without_query(url) == "http://h/p"

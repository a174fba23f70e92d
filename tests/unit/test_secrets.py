"""Named secrets: who may use them, and that their values are never told."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.browse import secrets as kinds
from swarm.browse.errors import ErrorCode, JobError
from swarm.browse.payload.parts import SecretReference
from swarm.browse.secrets import Redactor, Secrets
from swarm.errors import ConfigError

FILE = """
token: {type: text, value: the-value, hosts: [shop.example.org, "*.shop.example.org"]}
upstream: {type: proxy, server: "http://proxy:3128", username: u, password: proxy-password}
"""


@pytest.fixture
def secrets() -> Secrets:
    return Secrets.parse(FILE, where="file")


def reveal(secrets: Secrets, name: str, url: str) -> str:
    return secrets.text_for(SecretReference(secret=name), url, stage="fill")


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example.org/login",
        "http://a.shop.example.org:8080/",
        "HTTP://SHOP.example.org",
    ],
)
def test_a_secret_is_for_the_hosts_that_it_names(secrets: Secrets, url: str) -> None:
    assert reveal(secrets, "token", url) == "the-value"


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/",
        "https://shop.example.org.evil.net/",
        "https://evil.net/shop.example.org",
        "https://xshop.example.org/",
        "about:blank",
        "data:text/html,shop.example.org",
        "",
    ],
)
def test_a_secret_is_for_no_other_host(secrets: Secrets, url: str) -> None:
    with pytest.raises(JobError) as caught:
        reveal(secrets, "token", url)
    assert caught.value.code is ErrorCode.INVALID
    assert "the-value" not in str(caught.value)


def test_a_plain_text_needs_no_permission(secrets: Secrets) -> None:
    assert secrets.text_for("plain", "https://evil.net/", stage="fill") == "plain"


@pytest.mark.parametrize(("name", "kind"), [("none", kinds.Text), ("token", kinds.Proxy)])
def test_a_secret_of_another_type_is_none(secrets: Secrets, name: str, kind: Any) -> None:
    with pytest.raises(JobError, match="no secret"):
        secrets.find(name, kind, stage="payload")


def test_an_absent_file_holds_no_secret() -> None:
    with pytest.raises(JobError):
        Secrets.parse("", where="file").find("token", kinds.Text, stage="payload")


@pytest.mark.parametrize(
    "text",
    [
        "- token",
        "{",
        "token: {type: text, value: hidden-value}",
        "token: {type: text, value: hidden-value, hosts: []}",
        "token: {type: dance, value: hidden-value, hosts: [h]}",
        "Token: {type: text, value: hidden-value, hosts: [h]}",
        "p: {type: proxy, server: 'http://u:hidden-value@proxy:3128'}",
    ],
)
def test_a_wrong_file_is_refused_without_its_values(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Secrets.parse(text, where="file")
    assert "hidden-value" not in str(caught.value)
    assert "file" in str(caught.value)


def test_values_are_not_in_a_representation(secrets: Secrets) -> None:
    found = secrets.find("upstream", kinds.Proxy, stage="payload")
    assert "proxy-password" not in repr(found)


def test_a_redactor_hides_values_wherever_they_stand() -> None:
    redactor = Redactor()
    redactor.hide(["abcd", "abcdef", "x"])
    assert redactor.text("abcdef abcd x") == "*** *** x"
    assert redactor.content(b"-abcdef-") == b"-***-"
    assert redactor.values({"abcd": ["1abcd", {"n": 3, "t": None}]}) == {
        "***": ["1***", {"n": 3, "t": None}]
    }


def test_a_redactor_without_secrets_changes_nothing() -> None:
    values = {"a": ("b",)}
    assert Redactor().values(values) is values
    assert not Redactor()

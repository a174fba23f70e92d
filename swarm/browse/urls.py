"""URLs as browsers read them: what a payload may name, and which address a host stands for.

Chromium follows the WHATWG URL Standard, so `http://0x7f.1/`, `http://2130706433/` and
`http://①②⑦.0.0.1/` are all 127.0.0.1 to it. ada, the parser of Node.js, reads them alike.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated

import ada_url
from pydantic import AfterValidator

MAX_URL_CHARACTERS = 8192

_AUTHORITY_END = re.compile(r"[/\\?#]")

Address = IPv4Address | IPv6Address


def _check_url(url: str) -> str:
    if len(url) > MAX_URL_CHARACTERS:
        raise ValueError(f"a URL of at most {MAX_URL_CHARACTERS} characters")
    if any(ord(character) <= 0x20 or ord(character) == 0x7F for character in url):
        raise ValueError("a URL without spaces and control characters")
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError("a URL whose scheme is http or https")
    authority = _AUTHORITY_END.split(url.partition("://")[2], maxsplit=1)[0]
    # Browsers take http:///h for http://h; people who write it mean something else.
    if not authority:
        raise ValueError("a URL with a host")
    if "@" in authority:
        raise ValueError("a URL without user and password")
    try:
        ada_url.URL(url)
    except ValueError as exc:
        raise ValueError("a URL that can be parsed") from exc
    return url


PageUrl = Annotated[str, AfterValidator(_check_url)]


def host_of(url: str) -> str:
    """The host of a URL in its canonical form; empty for one that has none or cannot be parsed."""
    try:
        return str(ada_url.URL(url).hostname).strip("[]")
    except ValueError:
        return ""


def literal_address(url: str) -> Address | None:
    """The address that a URL names in whatever notation; None when its host is a name."""
    try:
        return ip_address(host_of(url))
    except ValueError:
        return None


def without_query(url: str) -> str:
    """A URL fit for logs: queries and fragments carry tokens."""
    return url.partition("#")[0].partition("?")[0]

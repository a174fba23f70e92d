"""One Redis that holds queues: its URL, TLS and time limits, checked before anything connects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from swarm.errors import ConfigError, Problem

#: Seconds until a connection attempt counts as failed. Without it a producer hangs on a dead
#: connection for as long as TCP retries.
CONNECT_TIMEOUT_S = 2.0
#: Seconds until an unanswered command counts as failed: producers are promised an answer in 3 s.
#: A wait for a bell has a longer limit of its own (swarm/delivery/transport.py).
SOCKET_TIMEOUT_S = 2.5

if TYPE_CHECKING:
    import redis

#: What makes redis-py connect with no more commands than the password needs: no HELLO, no CLIENT
#: SETINFO, no CLIENT MAINT_NOTIFICATIONS.
QUIET: dict[str, Any] = {"protocol": 2, "driver_info": None}

_EXPECTED_URL = "redis://[USER:PASSWORD@]HOST[:PORT][/DB] or rediss://... for TLS"


@dataclass(frozen=True, slots=True)
class Broker:
    """A Redis by its role (`primary`) and its URL, which holds the password."""

    name: str
    url: str

    @property
    def address(self) -> str:
        """Scheme, host and port: fit for logs, without user and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}"

    def __repr__(self) -> str:
        return f"Broker({self.name}, {self.address})"


def connect(broker: Broker) -> redis.Redis:
    """A client for one short errand: it asks once, and not longer than the time limits."""
    import redis  # noqa: PLC0415 - who only checks a URL need not load it

    return redis.Redis.from_url(
        broker.url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=SOCKET_TIMEOUT_S,
        retry=None,
        **QUIET,
    )


def parse_broker(name: str, url: str, *, variable: str) -> Broker:
    """Check a Redis URL; TLS is verified unless the URL itself names something weaker.

    kombu's `rediss://` verifies no certificate unless the URL says `ssl_cert_reqs=required`, so
    that is added.

    Raises:
        ConfigError: naming `variable`; the value is shown without its password.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        problem = _problem_of(parts)
    except ValueError:
        # Raised for unbalanced brackets, among others; its text may quote the password.
        parts, problem = SplitResult("", "", "", "", ""), _EXPECTED_URL
    if problem is not None:
        raise ConfigError([Problem(variable, repr(_redacted(url)), problem)])
    if parts.scheme == "rediss":
        query = dict(parse_qsl(parts.query))
        query.setdefault("ssl_cert_reqs", "required")
        parts = parts._replace(query=urlencode(query))
    return Broker(name, urlunsplit(parts))


def _problem_of(parts: SplitResult) -> str | None:
    """What was expected instead, or None for a good URL."""
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        return _EXPECTED_URL
    try:
        _ = parts.port
    except ValueError:
        return "a port from 1 to 65535"
    database = parts.path.removeprefix("/")
    if database and not database.isdecimal():
        return "a database number after the slash, such as /0"
    requirement = dict(parse_qsl(parts.query)).get("ssl_cert_reqs", "required")
    if requirement.lower() not in {"required", "cert_required"}:
        return (
            "ssl_cert_reqs=required, or no such parameter: a certificate that is not verified "
            "lets anyone read the password (for a private authority, give ssl_ca_certs=FILE)"
        )
    return None


def _redacted(url: str) -> str:
    """The URL with everything between scheme and @ hidden, and what follows a ? too."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    before, at, place = rest.rpartition("@")
    place, query, _ = place.partition("?")
    return f"{scheme}://{'***@' if at or before else ''}{place}{'?***' if query else ''}"

"""Where the brokers are: a URL each, with what TLS needs, checked before anything connects."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

from swarm.errors import ConfigError, Problem

BrokerName = Literal["primary", "fallback"]
#: Which variable says where each broker is.
VARIABLES: dict[BrokerName, str] = {"primary": "REDIS_URL", "fallback": "REDIS_FALLBACK_URL"}
_TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_EXPECTED_URL = "redis://[USER:PASSWORD@]HOST[:PORT][/DB] or rediss://... for TLS"


@dataclass(frozen=True, slots=True)
class Broker:
    """A Redis by its role (`primary`, `fallback`) and its URL, which holds the password."""

    name: BrokerName
    url: str

    @property
    def address(self) -> str:
        """Scheme, host and port: fit for logs, without user and password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}"

    @property
    def variable(self) -> str:
        """What errors name."""
        return VARIABLES[self.name]

    @property
    def place(self) -> tuple[str | None, int, str]:
        """Host, port and database: two brokers with the same one are one."""
        parts = urlsplit(self.url)
        return parts.hostname, parts.port or 6379, parts.path.removeprefix("/") or "0"

    @property
    def tls(self) -> dict[str, str]:
        """The `ssl_` parameters of its URL; none for one without TLS."""
        query = parse_qsl(urlsplit(self.url).query)
        return {name: value for name, value in query if name.startswith("ssl_")}

    def __repr__(self) -> str:
        return f"Broker({self.name}, {self.address})"


@dataclass(frozen=True, slots=True)
class Brokers:
    """All that tasks may be given to, in this order."""

    primary: Broker
    fallback: Broker | None = None

    def __iter__(self) -> Iterator[Broker]:
        yield self.primary
        if self.fallback is not None:
            yield self.fallback


def parse_broker(name: BrokerName, url: str, *, variable: str) -> Broker:
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


def check_files(broker: Broker, *, variable: str) -> None:
    """Read the certificates that the URL names, as connecting will.

    Raises:
        ConfigError: naming `variable` and the file.
    """
    query = dict(parse_qsl(urlsplit(broker.url).query))
    files = {name: query[name] for name in _TLS_FILES if name in query}
    problems = []
    for name, path in files.items():
        try:
            Path(path).read_bytes()
        except OSError as exc:
            expected = f"a PEM file that can be read ({exc.strerror})"
            problems.append(Problem(variable, f"{name}={path}", expected))
    certificate, key = files.get("ssl_certfile"), files.get("ssl_keyfile")
    if key and not certificate:
        expected = "ssl_certfile=FILE too, the certificate of this key"
        problems.append(Problem(variable, f"ssl_keyfile={key}", expected))
    if problems:
        raise ConfigError(problems)
    context = ssl.create_default_context()
    if authority := files.get("ssl_ca_certs"):
        try:
            context.load_verify_locations(authority)
        except ssl.SSLError as exc:
            expected = "certificates of authorities in PEM"
            raise ConfigError.of(variable, f"ssl_ca_certs={authority}", expected) from exc
    if certificate:
        try:
            # Never ask on a terminal.
            context.load_cert_chain(certificate, key, password=lambda: "")
        except ssl.SSLError as exc:
            expected = "a certificate in PEM, and its key, which has no passphrase"
            raise ConfigError.of(variable, f"ssl_certfile={certificate}", expected) from exc


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
    query = dict(parse_qsl(parts.query))
    if query.get("ssl_cert_reqs", "required").lower() not in {"required", "cert_required"}:
        return (
            "ssl_cert_reqs=required, or no such parameter: a certificate that is not verified "
            "lets anyone read the password (for a private authority, give ssl_ca_certs=FILE)"
        )
    if query.get("ssl_check_hostname", "true").lower() not in {"1", "true", "t", "yes", "y", "on"}:
        return (
            "no ssl_check_hostname: a certificate for another name lets whoever has one read the "
            "password"
        )
    if parts.scheme == "redis" and any(name.startswith("ssl_") for name in query):
        return "rediss://..., because its parameters are about TLS, or none of these"
    return None


def _redacted(url: str) -> str:
    """The URL with everything between scheme and @ hidden, and what follows a ? too."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    before, at, place = rest.rpartition("@")
    place, query, _ = place.partition("?")
    return f"{scheme}://{'***@' if at or before else ''}{place}{'?***' if query else ''}"

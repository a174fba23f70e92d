"""A client of the stand-in for a hosted Redis that sends nothing unasked."""

from __future__ import annotations

from redis import Redis

from lab.hosted import Certificates, HostedRedis
from tests.loopback import PASSWORD

#: What the service answers at its limit.
LIMIT_TEXT = "max requests limit exceeded. Limit: {0}, Usage: {0}"


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

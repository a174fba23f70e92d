"""Connections to a broker that ask once, and not longer than the time limits."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from swarm.brokers.address import Broker
from swarm.brokers.verdict import Verdict, classify
from swarm.errors import BrokerAwayError, ConfigError, Problem

if TYPE_CHECKING:
    import redis

#: Seconds until a connection attempt counts as failed. Without it a producer hangs on a dead
#: connection for as long as TCP retries.
CONNECT_TIMEOUT_S = 2.0
#: Seconds until an unanswered command counts as failed: producers are promised an answer in 3 s.
#: A wait for a bell has a longer limit of its own (swarm/delivery/transport.py).
SOCKET_TIMEOUT_S = 2.5

#: A broker that is gone without a word is noticed by TCP within half a minute, at no request.
KEEPALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
#: What makes redis-py connect with no more commands than the password needs: no HELLO, no CLIENT
#: SETINFO, no CLIENT MAINT_NOTIFICATIONS.
QUIET: dict[str, Any] = {"protocol": 2, "driver_info": None}


def connect(broker: Broker) -> redis.Redis:
    """A client for one short errand."""
    import redis  # noqa: PLC0415 - who only checks a URL need not load it

    return redis.Redis.from_url(
        broker.url,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_timeout=SOCKET_TIMEOUT_S,
        retry=None,
        **QUIET,
    )


def refusal(broker: Broker, verdict: Verdict) -> Problem:
    """What people are told of a verdict `refused`: which variable, where it leads, what to do."""
    return Problem(broker.variable, f"{broker.address} ({verdict.reason})", verdict.advice)


def failure(broker: Broker, exc: Exception) -> BrokerAwayError | ConfigError:
    """What people are told when a question to it ended so."""
    import redis  # noqa: PLC0415

    verdict = classify(exc)
    if verdict.state == "refused":
        return ConfigError([refusal(broker, verdict)])
    how = "refused" if isinstance(exc, redis.ResponseError) else "did not answer"
    return BrokerAwayError(f"the broker {broker.address} {how}: {exc}")


def ask(broker: Broker) -> tuple[Verdict, float]:
    """Enter and ask one thing: how it went, and the seconds that it took.

    Two or three requests, for people who want to know; how a broker is otherwise comes from what
    is done on it anyway.
    """
    import redis  # noqa: PLC0415

    begun = time.monotonic()
    try:
        with connect(broker) as client:
            client.ping()
    except (redis.RedisError, OSError) as exc:
        return classify(exc), time.monotonic() - begun
    return classify(None), time.monotonic() - begun

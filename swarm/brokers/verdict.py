"""What the end of one operation says about the broker: the only place that reads error texts.

Redis tells its limits, its loading and its refusals in the text of error replies, and redis-py what
failed of a connection in the text of its exceptions; neither offers more. Each text has a test.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "slow", "down", "limited", "refused"]
"""`limited`: it is there, and takes no more for now. `refused`: it does not let us in, which people
must put right; another broker would only hide it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one operation's end says.

    `ok` is every answer that is about the operation and not about the broker, errors as well.
    """

    state: State
    reason: str = ""
    advice: str = ""
    """For `refused`: what was expected in the broker's URL."""
    uncertain: bool = False
    """Whether the operation may have been done although no answer came."""


_USER = "the name and the password of a user that the broker knows"
_RIGHTS = "a user who may do this"
_PEER = "a broker whose certificate is for this name and signed by an authority that is trusted"
_AUTHORITY = f"{_PEER} (a private one: ssl_ca_certs=FILE)"
_CLIENT = (
    "ssl_certfile=FILE&ssl_keyfile=FILE with a certificate that the broker accepts: it asks for one"
)
_NO_TLS = "redis://..., because no TLS is spoken there"

#: Error replies, code and text in lower case. Upstash's: redis/troubleshooting in
#: https://github.com/upstash/docs, seen in https://github.com/medusajs/admin/issues/654.
_REPLIES: tuple[tuple[str, State, str], ...] = (
    (r"max (daily )?requests? limit exceeded", "limited", ""),
    (r"max concurrent connections exceeded", "limited", ""),
    (r"max number of clients reached", "limited", ""),
    (r"db capacity quota exceeded", "limited", ""),
    # Our own: what remains of its budget is for the tasks that it has.
    (r"^limited ", "limited", ""),
    (r"^oom |used memory > 'maxmemory'", "limited", ""),
    (r"^(loading|masterdown|clusterdown|tryagain|misconf|noreplicas|readonly) ", "down", ""),
    # A script has run for longer than 5 s; nothing else is done meanwhile.
    (r"^busy ", "slow", ""),
    (r"^(noauth|wrongpass) |invalid password|invalid username-password", "refused", _USER),
    (r"without any password configured", "refused", "no password, because the broker has none"),
    (r"wrong number of arguments for 'auth'", "refused", "no user's name, for an old Redis"),
    (r"^noperm |has no permissions? ", "refused", _RIGHTS),
    (r"^denied ", "refused", "a broker that other hosts may use (protected-mode)"),
    (r"db index is out of range", "refused", "the number of a database that exists, such as /0"),
)

#: What redis-py and OpenSSL say of connections, in lower case.
_CONNECTIONS: tuple[tuple[str, State, str, bool], ...] = (
    (r"certificate.verify.failed", "refused", _AUTHORITY, False),
    (
        r"alert.(certificate.(required|unknown|expired|revoked)|bad.certificate)",
        "refused",
        _CLIENT,
        False,
    ),
    (r"alert.(unknown.ca|handshake.failure|access.denied)", "refused", _CLIENT, False),
    (r"wrong.version.number|record.layer.failure|http.request", "refused", _NO_TLS, False),
    (
        r"timeout connecting|timed out during .*handshake|handshake operation timed out",
        "down",
        "",
        False,
    ),
    (r"^error (.* )?connecting to", "down", "", False),
    # redis-py's own pool is used up, and says nothing of the broker.
    (r"too many connections|no connection available", "ok", "", False),
    (r"^timeout |timed out", "slow", "", True),
)


def classify(error: BaseException | None) -> Verdict:
    """The verdict on an operation that ended so; None is an answer.

    Whatever wraps the error of redis-py or of the socket is looked through (kombu, Celery).
    """
    if error is None:
        return Verdict("ok")
    from redis.exceptions import (  # noqa: PLC0415 - who only checks a URL need not load it
        AuthenticationError,
        AuthorizationError,
        BusyLoadingError,
        RedisError,
        ResponseError,
    )

    cause = _innermost(error, (RedisError, OSError))
    replies = (ResponseError, AuthenticationError, AuthorizationError, BusyLoadingError)
    code = getattr(cause, "status_code", None)
    text = f"{code} {cause}" if code and code != "ERR" else str(cause)
    # Redis repeats the arguments of an unknown command, such as a password.
    text = " ".join(text.partition(", with args beginning with")[0].split())
    reason = text or type(cause).__name__
    if isinstance(cause, replies) or "max number of clients" in text:
        return _of_reply(reason)
    if isinstance(cause, (ConnectionRefusedError, socket.gaierror)):
        return Verdict("down", reason)
    if isinstance(cause, RedisError | OSError):
        return _of_connection(reason)
    return Verdict("ok", reason)


def _innermost(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException:
    """The first of these kinds among the error and what it was raised from; else the error."""
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, kinds):
            return current
        current = current.__cause__ or current.__context__
    return error


def _of_reply(reason: str) -> Verdict:
    for pattern, state, advice in _REPLIES:
        if re.search(pattern, reason.lower()):
            return Verdict(state, reason, advice)
    return Verdict("ok", reason)


def _of_connection(reason: str) -> Verdict:
    for pattern, state, advice, uncertain in _CONNECTIONS:
        if re.search(pattern, reason.lower()):
            return Verdict(state, reason, advice, uncertain)
    # It broke off, and nobody knows whether before or after it was done.
    return Verdict("down", reason, uncertain=True)

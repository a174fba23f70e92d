"""What each error text of Redis, of Upstash, of redis-py and of OpenSSL says about the broker."""

from __future__ import annotations

import socket
import ssl

import pytest
from kombu.exceptions import OperationalError
from redis._parsers.base import BaseParser
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError
from redis.exceptions import TimeoutError as RedisTimeoutError

from swarm.brokers import State, Verdict, classify


def reply(text: str) -> Exception:
    """What redis-py makes of an error reply."""
    error: Exception = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("ERR max requests limit exceeded. Limit: 500000, Usage: 500000", "limited"),
        (
            "ERR max daily request limit exceeded. Limit: 10000, Usage: 10001. See https://x",
            "limited",
        ),
        ("ERR max concurrent connections exceeded", "limited"),
        ("ERR max number of clients reached", "limited"),
        ("ERR DB capacity quota exceeded", "limited"),
        ("OOM command not allowed when used memory > 'maxmemory'.", "limited"),
        (
            "OOM command not allowed when used memory > 'maxmemory'. script: f, on @user_script:1.",
            "limited",
        ),
        ("LOADING Redis is loading the dataset in memory", "down"),
        (
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "down",
        ),
        ("CLUSTERDOWN The cluster is down", "down"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "down"),
        ("MISCONF Redis is configured to save RDB snapshots, but it's unable to persist", "down"),
        ("NOREPLICAS Not enough good replicas to write.", "down"),
        ("READONLY You can't write against a read only replica.", "down"),
        ("BUSY Redis is busy running a script. You can only call SCRIPT KILL.", "slow"),
        ("NOAUTH Authentication required.", "refused"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "refused"),
        ("WRONGPASS invalid or missing auth token", "refused"),
        ("ERR invalid password", "refused"),
        (
            "ERR AUTH <password> called without any password configured for the default user.",
            "refused",
        ),
        ("ERR wrong number of arguments for 'auth' command", "refused"),
        ("NOPERM this user has no permissions to run the 'keys' command", "refused"),
        ("DENIED Redis is running in protected mode because", "refused"),
        ("ERR DB index is out of range", "refused"),
        # Answers about the operation.
        ("NOSCRIPT No matching script. Please use EVAL.", "ok"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "ok"),
        ("EXECABORT Transaction discarded because of previous errors.", "ok"),
        ("ERR Error running script: attempt to index a nil value", "ok"),
        ("ERR max request size exceeded", "ok"),
        ("ERR max single record size exceeded", "ok"),
        ("ERR Command is not available: 'OBJECT'. See https://docs.upstash.com", "ok"),
    ],
)
def test_an_error_reply(text: str, state: State) -> None:
    verdict = classify(reply(text))
    assert verdict.state == state
    assert not verdict.uncertain
    assert bool(verdict.advice) == (state == "refused")
    assert verdict.reason.split()[-1] in text


@pytest.mark.parametrize(
    ("text", "state", "uncertain"),
    [
        ("Error 111 connecting to 127.0.0.1:6379. Connection refused.", "down", False),
        ("Error 113 connecting to 10.0.0.1:6379. No route to host.", "down", False),
        ("Error -2 connecting to nowhere:6379. Name or service not known.", "down", False),
        ("Error 104 connecting to h:6379. Connection reset by peer.", "down", False),
        (
            "Error _ssl.c:983: The handshake operation timed out connecting to h:6380.",
            "down",
            False,
        ),
        ("Error UNKNOWN while writing to socket. x.", "down", True),
        ("Error 32 while writing to socket. Broken pipe.", "down", True),
        ("Error while reading from h:6379 : (104, 'Connection reset by peer')", "down", True),
        ("Connection closed by server.", "down", True),
    ],
)
def test_a_connection_that_failed(text: str, state: State, *, uncertain: bool) -> None:
    verdict = classify(RedisConnectionError(text))
    assert (verdict.state, verdict.uncertain) == (state, uncertain)
    assert bool(verdict.advice) == (state == "refused")


@pytest.mark.parametrize(
    ("reading", "text"),
    [
        (
            False,
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: no issuer",
        ),
        (
            False,
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: Hostname",
        ),
        (True, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"),
        (True, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca"),
        (False, "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure"),
        (True, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert certificate expired"),
        (False, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
        (False, "[SSL: RECORD_LAYER_FAILURE] record layer failure"),
    ],
)
def test_tls_that_is_turned_away(text: str, *, reading: bool) -> None:
    if reading:
        said = f"Error while reading from h:6380 : (1, '{text} (_ssl.c:2580)')"
    else:
        said = f"Error 1 connecting to h:6380. {text} (_ssl.c:992)."
    verdict = classify(RedisConnectionError(said))
    assert (verdict.state, verdict.uncertain) == ("refused", False)
    assert verdict.advice


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, Verdict("ok")),
        (
            RedisTimeoutError("Timeout connecting to server"),
            Verdict("down", "Timeout connecting to server"),
        ),
        (
            RedisTimeoutError("Timeout reading from h:6379"),
            Verdict("slow", "Timeout reading from h:6379", uncertain=True),
        ),
        (
            RedisTimeoutError("Timeout writing to socket"),
            Verdict("slow", "Timeout writing to socket", uncertain=True),
        ),
        (TimeoutError("timed out"), Verdict("slow", "timed out", uncertain=True)),
        (ConnectionRefusedError(111, "refused"), Verdict("down", "[Errno 111] refused")),
        (socket.gaierror(-3, "try again"), Verdict("down", "[Errno -3] try again")),
        (ConnectionResetError(104, "reset"), Verdict("down", "[Errno 104] reset", uncertain=True)),
        (MaxConnectionsError("Too many connections"), Verdict("ok", "Too many connections")),
        (ValueError("ours"), Verdict("ok", "ours")),
        (RedisConnectionError(), Verdict("down", "ConnectionError", uncertain=True)),
    ],
)
def test_other_ends(error: BaseException | None, expected: Verdict) -> None:
    assert classify(error) == expected


def test_a_certificate_error_of_its_own_is_refused() -> None:
    error = ssl.SSLCertVerificationError(
        1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"
    )
    assert classify(error).state == "refused"


def test_what_wraps_an_error_is_looked_through() -> None:
    wrapped = OperationalError("max requests limit exceeded")
    wrapped.__cause__ = reply("ERR max requests limit exceeded. Limit: 5, Usage: 5")
    assert classify(wrapped).state == "limited"


def test_a_password_that_redis_repeats_is_not_told() -> None:
    verdict = classify(
        reply("ERR unknown command 'AUTH', with args beginning with: 'user' 'hunter2' ")
    )
    assert "hunter2" not in verdict.reason

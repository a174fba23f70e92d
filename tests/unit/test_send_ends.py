"""Telling the brokers of the ends on the disk, one attempt."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import pytest
import redis

from swarm.brokers import parse_broker
from swarm.delivery import send_ends
from swarm.delivery.spool import Spool, SpooledEnd

BROKER = parse_broker("primary", "redis://:s3cret@h", variable="REDIS_URL")


class Client:
    """Answers every script with one error, or takes it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def evalsha(self, *_: Any) -> bytes:
        if self.error is not None:
            raise self.error
        return b"committed"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path, "primary")
    spool.write(SpooledEnd("tag", "task", ("holder", "tag", "task")))
    return spool


def send(spool: Spool, client: Client, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setattr(send_ends, "connect", lambda _: client)
    return send_ends._send(spool, BROKER)


def test_a_broker_that_does_not_let_us_in_is_told_by_its_variable(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(redis.AuthenticationError("WRONGPASS invalid username-password pair"))
    assert send(spool, client, monkeypatch) == (
        0,
        (
            "REDIS_URL: got redis://h:6379 (WRONGPASS invalid username-password pair), "
            "expected the name and the password of a user that the broker knows"
        ),
    )
    assert spool.tags() == {"tag"}


def test_an_end_that_stays_on_the_disk_is_tried_again_and_not_at_once(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is given a reason makes a pause."""

    def read_only(*_: object, **_options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", read_only)
    sent, why = send(spool, Client(), monkeypatch)
    assert (sent, why) == (0, "[Errno 30] Read-only file system")


def test_an_end_that_is_told_of_is_gone(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert send(spool, Client(), monkeypatch) == (1, "")
    assert spool.tags() == set()

"""What a broker that was away is told later, and which connections leave nothing behind."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context

import pytest
import redis

from swarm.delivery.connections import abortive
from swarm.delivery.holder import Holder, HolderName
from swarm.delivery.scripts import is_transient


class Broker:
    """Tellings, and what came of them."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self.told: list[str] = []
        self.heard = threading.Event()

    def send(self, tag: str) -> Callable[[], None]:
        def tell() -> None:
            if tag in self.errors:
                raise self.errors[tag]
            self.told.append(tag)
            self.heard.set()

        return tell


@pytest.fixture
def holder() -> Holder:
    return Holder(HolderName("h:browser:1:", "a", is_unit=True))


def _never() -> redis.Redis:
    return redis.Redis()


def test_what_could_not_be_told_is_told_once_the_broker_answers(
    holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.delivery.pending_ends._FIRST_PAUSE_S", 0.01)
    broker = Broker()
    broker.errors["t1"] = redis.ConnectionError("away")
    holder.pending_ends.add("t1", broker.send("t1"))
    assert not holder.pending_ends.send()
    assert holder.pending_ends.tags == {"t1"}
    broker.errors.clear()
    assert broker.heard.wait(5)
    assert holder.pending_ends.send()
    assert (holder.pending_ends.tags, set(broker.told)) == (set(), {"t1"})


def test_a_lasting_refusal_does_not_keep_others_waiting(
    holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.delivery.pending_ends._FIRST_PAUSE_S", 60.0)
    broker = Broker()
    broker.errors["t1"] = redis.ResponseError("WRONGTYPE no list")
    broker.errors["t2"] = AttributeError("a mistake")
    for tag in ("t1", "t2", "t3"):
        holder.pending_ends.add(tag, broker.send(tag))
    assert holder.pending_ends.send()
    assert (holder.pending_ends.tags, broker.told) == (set(), ["t3"])


def test_what_is_taken_again_is_not_told_of_any_more(
    holder: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.delivery.pending_ends._FIRST_PAUSE_S", 60.0)
    broker = Broker()
    holder.pending_ends.add("t1", broker.send("t1"))
    holder.took("t1", _never, again=True)
    assert holder.pending_ends.send()
    assert broker.told == []
    holder.close()


def test_what_is_taken_again_needs_its_lease_at_once(holder: Holder) -> None:
    holder.took("t1", _never, again=False)
    assert not holder.needs_lease(0.0)
    holder.took("t2", _never, again=True)
    assert holder.needs_lease(0.0)
    holder.close()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (redis.ConnectionError("refused"), True),
        (redis.TimeoutError(), True),
        (OSError("no route"), True),
        (redis.exceptions.BusyLoadingError("loading"), True),
        (redis.exceptions.OutOfMemoryError("full", status_code="OOM"), True),
        (redis.exceptions.ReadOnlyError("replica", status_code="READONLY"), True),
        (redis.ResponseError("MISCONF cannot save"), True),
        (redis.ResponseError("BUSY a script runs"), True),
        (redis.exceptions.NoPermissionError("no", status_code="NOPERM"), False),
        (redis.ResponseError("WRONGTYPE no list"), False),
        (redis.ResponseError(""), False),
        (redis.DataError("not to be sent"), False),
        (ValueError("a mistake"), False),
    ],
)
def test_what_may_succeed_later(error: Exception, expected: object) -> None:
    assert is_transient(error) is expected


@pytest.mark.parametrize("children", [0, 1])
def test_a_connection_that_closes_takes_back_what_was_not_received(children: int) -> None:
    """Though a pool process, forked meanwhile, has a copy of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = abortive(redis.Connection)(
            host="127.0.0.1", port=server.getsockname()[1], socket_timeout=0.2
        )
        ours = connection._sock = connection._connect()
        theirs, _ = server.accept()
        forked = [
            get_context("fork").Process(target=time.sleep, args=(60,)) for _ in range(children)
        ]
        for child in forked:
            child.start()
        with theirs:
            # More than lies in both buffers: the rest waits to be sent.
            with pytest.raises(TimeoutError):
                ours.sendall(b"x" * 50_000_000)
            connection.disconnect()
            theirs.settimeout(5)
            with pytest.raises(ConnectionResetError):
                _read_to_the_end(theirs)
        for child in forked:
            child.kill()
            child.join()


def _read_to_the_end(connection: socket.socket) -> None:
    while connection.recv(1_000_000):
        pass

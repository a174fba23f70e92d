"""Datagrams to a real unix socket, as systemd would receive them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.sdnotify import Notifier


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(2)
        yield listening


def close(notifier: Notifier) -> None:
    if notifier._socket is not None:
        notifier._socket.close()


@pytest.fixture(params=["path", "abstract"])
def notifier(
    request: pytest.FixtureRequest, listener: socket.socket, tmp_path: Path
) -> Iterator[Notifier]:
    if request.param == "path":
        address = shown = str(tmp_path / "notify")
    else:
        shown = f"@swarm-test-{os.getpid()}"
        address = "\0" + shown[1:]
    listener.bind(address)
    notifier = Notifier({"NOTIFY_SOCKET": shown})
    yield notifier
    close(notifier)


def test_each_call_is_one_datagram(notifier: Notifier, listener: socket.socket) -> None:
    assert notifier.under_systemd
    notifier.ready("browser: 0 busy of 1")
    notifier.status("browser: 1 busy of 1, naïve")
    notifier.watchdog()
    notifier.stopping("bye")
    assert [listener.recv(4096).decode() for _ in range(4)] == [
        "READY=1\nSTATUS=browser: 0 busy of 1",
        "STATUS=browser: 1 busy of 1, naïve",
        "WATCHDOG=1",
        "STOPPING=1\nSTATUS=bye",
    ]


def test_systemd_takes_the_datagram_however_long_the_status_is(
    notifier: Notifier, listener: socket.socket
) -> None:
    notifier.ready("é" * 5000)
    told = listener.recv(10_000)
    assert len(told) <= 4096
    assert told.startswith(b"READY=1\nSTATUS=\xc3\xa9")
    assert told.decode().endswith("é...")


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_systemd_nothing_happens(environ: dict[str, str]) -> None:
    notifier = Notifier(environ)
    assert not notifier.under_systemd
    notifier.ready("x")


def test_a_socket_that_is_gone_harms_nothing(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "absent")})
    notifier.watchdog()
    close(notifier)


def test_a_socket_nobody_reads_blocks_nothing(notifier: Notifier) -> None:
    for _ in range(1000):
        notifier.watchdog()

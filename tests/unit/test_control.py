"""An instance's socket: who is answered, and what, whatever he sends."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from swarm import unitctl
from swarm.worker import control
from swarm.worker.control import ControlServer
from swarm.worker.orders import LONGEST_ID, Answer, Orders


def cancel(request: Mapping[str, Any]) -> Mapping[str, Any]:
    if request.get("task_id") == "odd":
        raise ValueError("task_id: an odd one")
    return {"outcome": "cancelled"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ControlServer]:
    server = ControlServer(tmp_path / "browser-3.sock", {"cancel": cancel})
    server.start()
    yield server
    server.stop()


def say(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(5)
        connection.connect(str(path))
        connection.sendall(b"".join(line + b"\n" for line in lines))
        with connection.makefile("rb") as replies:
            return [json.loads(replies.readline()) for _ in lines]


def request(**fields: Any) -> bytes:
    return json.dumps({"version": 1, "verb": "cancel", "task_id": "t", **fields}).encode()


def test_replies_carry_their_requests_ids_in_order(server: ControlServer, tmp_path: Path) -> None:
    replies = say(tmp_path / "browser-3.sock", request(id="1"), request(id="2", verb="dance"))
    assert replies == [
        {"version": 1, "id": "1", "ok": True, "outcome": "cancelled"},
        {"version": 1, "id": "2", "ok": False, "error": "no verb 'dance'; there is: cancel"},
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", "Expecting value"),
        (b"hello", "Expecting value"),
        (b"\xff\xfe", "utf-"),
        (b"[1]", "not a JSON object"),
        (b"[" * 60_000, "recursion"),
        (request(version=2), "version 2, expected 1"),
        (request(version=None), "version None, expected 1"),
        (request(verb=["cancel"]), "no verb ['cancel']; there is: cancel"),
        (request(task_id="odd"), "task_id: an odd one"),
    ],
)
def test_a_wrong_request_is_told_why_and_harms_nothing(
    server: ControlServer, tmp_path: Path, line: bytes, error: str
) -> None:
    [reply] = say(tmp_path / "browser-3.sock", line)
    assert reply["ok"] is False
    assert error in reply["error"]
    assert say(tmp_path / "browser-3.sock", request())[0]["ok"]


def test_one_who_hangs_up_harms_nothing(server: ControlServer, tmp_path: Path) -> None:
    path = tmp_path / "browser-3.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(str(path))
        connection.sendall(b'{"version": 1, "ve')
    assert say(path, request())[0]["ok"]


def test_a_user_who_is_not_trusted_is_refused(
    server: ControlServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_peer_uid", lambda _: 4711)
    [reply] = say(tmp_path / "browser-3.sock", request())
    assert reply["error"] == "user 4711 may not control this instance"


def test_the_kernel_says_who_has_connected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert control._peer_uid(ours) == os.getuid()


def test_root_itself_and_the_operator_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert control._trusted_uids() >= {0, os.getuid()}
    assert 65_534 not in control._trusted_uids()
    monkeypatch.setattr(control, "_sees_all_users", lambda: False)
    assert 65_534 in control._trusted_uids()


def test_the_socket_is_for_owner_and_group_and_goes_with_its_server(tmp_path: Path) -> None:
    path = tmp_path / "browser-3.sock"
    path.write_text("left by an earlier process")
    server = ControlServer(path, {})
    server.start()
    assert path.is_socket()
    assert path.stat().st_mode & 0o777 == 0o660
    server.stop()
    assert not path.exists()
    server.stop()


@pytest.mark.parametrize("name", ["absent/browser-3.sock", "x" * 120])
def test_without_a_place_for_it_the_instance_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.WARNING)
    server = ControlServer(tmp_path / name, {})
    server.start()
    server.stop()
    assert "cannot be cancelled" in caplog.text


def test_unitctl_gathers_every_instances_answer(server: ControlServer, tmp_path: Path) -> None:
    deaf = tmp_path / "browser-4.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gone:
        gone.bind(str(deaf))
    (tmp_path / "unknown.sock").touch()
    (tmp_path / "browser-5.sock").write_text("no socket")
    answer = unitctl.cancel("t", tmp_path)
    assert answer == {
        "version": 1,
        "instances": [{"pool": "browser", "number": 3, "outcome": "cancelled"}],
    }
    assert unitctl.cancel("odd", tmp_path)["instances"] == [
        {"pool": "browser", "number": 3, "error": "task_id: an odd one"}
    ]
    assert unitctl.cancel("t", tmp_path / "absent")["instances"] == []


def test_unitctl_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unitctl, "_ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "browser-1.sock"))
        silent.listen()
        [instance] = unitctl.cancel("t", tmp_path)["instances"]
    assert instance == {"pool": "browser", "number": 1, "error": "no answer in 0.2 s"}


@pytest.mark.parametrize("task_id", ["t", "", "é" * (LONGEST_ID // 2)])
def test_orders_are_read_as_they_were_written(task_id: str) -> None:
    orders = Orders()
    orders.to_cancel = "an earlier and longer one"
    orders.answer = Answer.CANCELLED
    orders.is_pressed = True
    orders.to_cancel = task_id
    assert (orders.to_cancel, orders.answer, orders.is_pressed) == (task_id, Answer.NONE, True)


def test_an_id_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="1001 bytes, expected at most 1000"):
        Orders().to_cancel = "x" * 1001

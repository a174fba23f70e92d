"""An instance's socket: who is answered, and what, whatever he sends."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from swarm import control_protocol, unit_sockets, unitctl, witness
from swarm.unit_sockets import InstanceError
from swarm.unitctl import Command
from swarm.worker import control
from swarm.worker.control import ControlServer
from swarm.worker.orders import LONGEST_ID, Answer, Orders
from tests.builders import make_cgroups
from tests.stub_systemctl import StubSystemctl


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
    monkeypatch.setattr(control, "peer_uid", lambda _: 4711)
    [reply] = say(tmp_path / "browser-3.sock", request())
    assert reply["error"] == "user 4711 may not control this instance"


def test_the_kernel_says_who_has_connected() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert control_protocol.peer_uid(ours) == os.getuid()


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
    answer = unit_sockets.cancel("t", tmp_path)
    assert answer == {
        "version": 1,
        "instances": [{"pool": "browser", "number": 3, "outcome": "cancelled"}],
    }
    assert unit_sockets.cancel("odd", tmp_path)["instances"] == [
        {"pool": "browser", "number": 3, "error": "task_id: an odd one"}
    ]
    assert unit_sockets.cancel("t", tmp_path / "absent")["instances"] == []


def test_unitctl_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit_sockets, "_ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "browser-1.sock"))
        silent.listen()
        [instance] = unit_sockets.cancel("t", tmp_path)["instances"]
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


def sequence_of(state: str, number: int, *, pid: int = 4711) -> control_protocol.Handler:
    return lambda _: {"state": state, "sequence": number, "since": 1.5, "pid": pid}


@pytest.fixture
def unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubSystemctl:
    systemctl = StubSystemctl(tmp_path)
    monkeypatch.setenv("PATH", systemctl.environ["PATH"])
    systemctl.add("celery-browser@3.service", main_pid=4711)
    return systemctl


@pytest.fixture
def drainable(tmp_path: Path, unit: StubSystemctl) -> Iterator[ControlServer]:
    verbs = {"drain": sequence_of("stopping", 2), "undrain": sequence_of("consuming", 3)}
    server = ControlServer(tmp_path / "browser-3.sock", verbs)
    server.start()
    yield server
    server.stop()


@pytest.mark.usefixtures("drainable")
@pytest.mark.parametrize(
    ("verb", "state", "number"), [("drain", "stopping", 2), ("undrain", "consuming", 3)]
)
def test_unitctl_tells_an_instance_and_what_it_answers(
    tmp_path: Path, verb: unitctl.Verb, state: str, number: int
) -> None:
    answer = unitctl.tell(Command(verb, "browser", 3), tmp_path)
    assert answer.pop("now") > 0
    assert answer == {
        "version": 1,
        "pool": "browser",
        "number": 3,
        "active_state": "active",
        "state": state,
        "sequence": number,
        "since": 1.5,
        "pid": 4711,
        "witness": None,
    }


def test_unitctl_adds_what_the_units_cgroup_holds(
    tmp_path: Path,
    drainable: ControlServer,
    unit: StubSystemctl,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drainable._handlers["drain"] = sequence_of("idle", 3, pid=os.getpid())
    monkeypatch.setattr(witness, "ROOTS", (make_cgroups(tmp_path, "/x", os.getpid()),))
    unit.add("celery-browser@3.service", main_pid=os.getpid(), control_group="/x")
    seen = unitctl.tell(Command("drain", "browser", 3), tmp_path)["witness"]
    assert (seen["processes"], seen["renderers"]) == (1, 0)


@pytest.mark.usefixtures("drainable")
@pytest.mark.parametrize("properties", [{"main_pid": 4712}, {"main_pid": 0}, None])
def test_the_word_of_another_process_proves_nothing(
    tmp_path: Path, unit: StubSystemctl, properties: dict[str, Any] | None
) -> None:
    if properties is None:
        unitctl._systemctl("stop", "--no-block", "celery-browser@3.service")
    else:
        unit.add("celery-browser@3.service", **properties)
    with pytest.raises(InstanceError, match="process 4711 answered, which celery-browser@3"):
        unitctl.tell(Command("drain", "browser", 3), tmp_path)


def test_unitctl_stops_what_is_as_idle_as_it_was(
    tmp_path: Path, drainable: ControlServer, unit: StubSystemctl
) -> None:
    drainable._handlers["drain"] = sequence_of("idle", 3)
    answer = unitctl.run(Command("stop", "browser", 3, pid=4711, sequence=3), Path(), tmp_path)
    assert json.loads(answer) == {"version": 1, "ok": True}
    assert unit.calls == ["--no-ask-password stop --no-block celery-browser@3.service"]


@pytest.mark.parametrize(
    ("state", "sequence", "pid"),
    [("idle", 5, 4711), ("idle", 3, 4712), ("stopping", 3, 4711), ("consuming", 3, 4711)],
)
def test_unitctl_stops_nothing_that_consumed_since_or_is_another(
    tmp_path: Path,
    drainable: ControlServer,
    unit: StubSystemctl,
    state: str,
    sequence: int,
    pid: int,
) -> None:
    drainable._handlers["drain"] = sequence_of(state, sequence, pid=pid)
    with pytest.raises(InstanceError, match=f"not stopped: .*@3.* is {state} as process {pid} "):
        unitctl.stop(Command("stop", "browser", 3, pid=4711, sequence=3), tmp_path)
    assert unit.calls == []


@pytest.mark.usefixtures("unit")
@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"id": "of an earlier request"}, "answered another request: 'of an earlier request'"),
        ({"ok": False, "error": "no verb 'drain'; there is: cancel"}, "3: no verb 'drain'"),
        ({"sequence": None, "without": "sequence"}, "no answer that is understood: 'sequence'"),
        ([], "no answer that is understood"),
        ("{", "no answer that is understood"),
        (None, "no answer that is understood"),
    ],
)
def test_an_answer_that_proves_nothing_is_an_error(tmp_path: Path, reply: Any, reason: str) -> None:
    with liar(tmp_path / "browser-3.sock", reply), pytest.raises(InstanceError, match=reason):
        unitctl.tell(Command("drain", "browser", 3), tmp_path)


@contextmanager
def liar(path: Path, reply: Any) -> Iterator[None]:
    """One who answers a request so, whatever it was."""
    fields = {"ok": True, "state": "idle", "sequence": 3, "since": 1.5, "pid": 4711}

    def answer() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as lines:
            request = json.loads(lines.readline())
            told = reply
            if isinstance(reply, dict):
                told = {"id": request["id"], **fields, **reply}
                told.pop(told.pop("without", ""), None)
            line = told if isinstance(told, str) else json.dumps(told)
            connection.sendall(line.encode() + b"\n")

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        yield
        thread.join()


@pytest.mark.usefixtures("unit")
def test_an_instance_that_is_not_there_or_silent_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InstanceError, match="browser-3 does not answer: No such file"):
        unitctl.tell(Command("drain", "browser", 3), tmp_path)
    monkeypatch.setattr(unit_sockets, "_ANSWER_S", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(tmp_path / "browser-3.sock"))
        silent.listen()
        with pytest.raises(InstanceError, match=r"browser-3: no answer in 0\.2 s"):
            unitctl.tell(Command("drain", "browser", 3), tmp_path)
    assert unitctl.main(["drain", "none-such", "3"], {}) == 1
    assert capsys.readouterr().err.startswith("swarm-unitctl: none-such-3 does not answer: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
@pytest.mark.parametrize(("uid", "gid", "refused"), [(4711, 4711, True), (4711, 4712, False)])
def test_the_directory_and_the_socket_let_only_their_group_in(
    uid: int, gid: int, *, refused: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        os.chown(directory, 0, 4712)
        directory.chmod(0o2750)
        server = ControlServer(directory / "browser-3.sock", {"cancel": cancel})
        server.start()
        program = (
            "import os, socket, sys\n"
            f"os.setgroups([]); os.setgid({gid}); os.setuid({uid})\n"
            "connection = socket.socket(socket.AF_UNIX)\n"
            "connection.connect(sys.argv[1])\n"
            "connection.sendall(b'{}\\n')\n"
            "print(connection.recv(1000).decode())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(directory / "browser-3.sock")],
            capture_output=True,
            text=True,
            check=False,
        )
        server.stop()
    if refused:
        assert "PermissionError" in done.stderr
    else:
        assert "user 4711 may not control this instance" in done.stdout

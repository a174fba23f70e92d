"""The scaler's socket, with real clients: who is answered, and what harms nobody else."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from swarm.errors import ConfigError, ScalerAwayError
from swarm.scaler.adapters import control_socket
from swarm.scaler.adapters.control_socket import ControlSocket, ask

ME = pwd.getpwuid(os.getuid()).pw_name


def answer(verb: str, fields: Mapping[str, Any], by: str) -> Mapping[str, Any]:
    if verb == "refuse":
        raise ConfigError.of("HOST", "'h9'", "one of h1")
    if verb == "early":
        raise ScalerAwayError("no turn has ended yet")
    if verb == "break":
        raise RuntimeError("a defect")
    return {"lines": [f"{verb} {dict(fields)} by {by}"]}


@pytest.fixture
async def path(tmp_path: Path) -> AsyncIterator[Path]:
    async with ControlSocket(tmp_path / "control.sock", answer):
        yield tmp_path / "control.sock"


async def asked(path: Path, verb: str, **fields: object) -> Mapping[str, Any]:
    return await asyncio.to_thread(lambda: ask(path, verb, **fields))


async def said(path: Path, *lines: bytes) -> list[dict[str, Any]]:
    def say() -> list[dict[str, Any]]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(b"".join(line + b"\n" for line in lines))
            with connection.makefile("rb") as replies:
                return [json.loads(replies.readline()) for _ in lines]

    return await asyncio.to_thread(say)


async def test_a_request_is_answered_with_who_asked(path: Path) -> None:
    reply = await asked(path, "drain", host="h1")
    assert reply == {"lines": [f"drain {{'host': 'h1'}} by {ME}"]}


async def test_replies_come_in_order_with_their_requests_ids(path: Path) -> None:
    replies = await said(
        path,
        b'{"version": 1, "id": "a", "verb": "one"}',
        b'{"version": 1, "id": "b", "verb": "refuse"}',
        b'{"version": 1, "id": "c", "verb": "three"}',
    )
    assert [(each["version"], each["id"], each["ok"]) for each in replies] == [
        (1, "a", True),
        (1, "b", False),
        (1, "c", True),
    ]
    assert replies[1]["error"] == "HOST: got 'h9', expected one of h1"
    assert replies[1]["exit_status"] == 2


async def test_what_is_refused_is_an_error_of_the_command(path: Path) -> None:
    with pytest.raises(ConfigError, match="HOST: got 'h9', expected one of h1"):
        await asked(path, "refuse")
    with pytest.raises(ScalerAwayError, match="no turn has ended yet"):
        await asked(path, "early")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "utf-"),
        (b"[1]", "not a JSON object"),
        (b"[" * 60_000, "recursion"),
        (b'{"verb": "drain"}', "version None, expected 1"),
        (b'{"version": 2}', "version 2, expected 1"),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_wrong_request_is_told_why_and_harms_nothing(
    path: Path, line: bytes, error: str
) -> None:
    [reply] = await said(path, line)
    assert reply["ok"] is False
    assert error in reply["error"]
    assert "lines" in await asked(path, "status")


async def test_a_defect_is_told_and_logged_and_harms_nothing(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match="its journal says how"):
        await asked(path, "break")
    assert "RuntimeError: a defect" in caplog.text
    assert "lines" in await asked(path, "status")


async def test_one_who_is_silent_hangs_up_or_says_too_much_keeps_nobody_waiting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "_TIMEOUT_S", 0.2)
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as endless:
        silent.connect(str(path))
        endless.connect(str(path))
        # More than the buffers of the socket take while nobody reads would keep us waiting.
        endless.settimeout(5)
        endless.send(b"x" * 70_000)
        with socket.socket(socket.AF_UNIX) as gone:
            gone.connect(str(path))
            gone.sendall(b'{"version": 1')
        assert "lines" in await asked(path, "status")
        # Both have been let go.
        silent.settimeout(5)
        assert await asyncio.to_thread(silent.recv, 1) == b""


def test_the_socket_is_its_users_and_its_groups_alone(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o660


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
async def test_others_are_told_whose_group_may() -> None:
    # Others do not reach pytest's own directories at all.
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)  # noqa: PTH101 - a Path blocks, to the linter
        async with ControlSocket(Path(directory) / "control.sock", answer):
            ran = await asyncio.to_thread(_ask_as_nobody, Path(directory) / "control.sock")
    assert ran.stderr == ""
    expected = "got user nobody, who is not let in, expected root, or a member of the group root"
    assert expected in ran.stdout


def _ask_as_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    program = f"""
import os, sys
from pathlib import Path
from swarm.scaler.adapters.control_socket import ask
from swarm.errors import ConfigError
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    ask(Path({str(path)!r}), "pause")
except ConfigError as exc:
    print(exc)
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


async def test_what_a_killed_scaler_left_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(ScalerAwayError, match=r"is swarm-scaler\.service active on"):
        await asked(path, "status")
    async with ControlSocket(path, answer):
        assert "lines" in await asked(path, "status")
    assert not path.exists()


@pytest.mark.parametrize("taken_by", ["a file", "a directory", "no directory", "a long path"])
async def test_where_it_cannot_be_the_scaler_goes_on_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, taken_by: str
) -> None:
    path = tmp_path / "control.sock"
    if taken_by == "a file":
        path.write_text("mine")
    elif taken_by == "a directory":
        path.mkdir()
    elif taken_by == "no directory":
        path = tmp_path / "absent" / "control.sock"
    else:
        path = tmp_path / ("x" * 120)
    async with ControlSocket(path, answer):
        assert caplog.text.count("no control socket, operators do not reach the scaler") == 1
        with pytest.raises(ScalerAwayError):
            await asked(path, "status")
    if taken_by == "a file":
        assert path.read_text() == "mine"


async def test_a_scaler_that_breaks_off_is_away(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_unix_server(hang_up, path)
    async with server:
        with pytest.raises(ScalerAwayError):
            await asked(path, "status")


async def test_a_scaler_that_does_not_answer_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "_TIMEOUT_S", 0.2)
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(path))
        stuck.listen()
        with pytest.raises(ScalerAwayError, match="timed out"):
            await asked(path, "status")

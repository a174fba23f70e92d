"""The socket by which operators reach the scaler (`swarm.control_protocol`).

    {"version": 1, "id": "7", "verb": "set", "pool": "browser", "instances": 4, "for_s": 1800}
    {"version": 1, "id": "7", "ok": true, "lines": ["browser is held at 4 by anna until ..."], ...}

Root and the group that the socket belongs to may connect; who it is, the kernel says. What is done
with a request is not decided here.
"""

from __future__ import annotations

import asyncio
import grp
import json
import logging
import os
import pwd
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from swarm.control_protocol import LONGEST_LINE, VERSION, peer_uid, reply_to
from swarm.errors import ConfigError, ScalerAwayError, SwarmError
from swarm.settings import ScalerSettings

log = logging.getLogger(__name__)

#: Seconds that one who has connected may take for a request, and to read the reply; and that a
#: command waits for the reply, which is there at once unless the daemon is stuck.
_TIMEOUT_S = 10.0

Answering = Callable[[str, Mapping[str, Any], str], Mapping[str, Any]]
"""Given verb, fields and the user's name, returns the reply's own fields or raises SwarmError."""


class ControlSocket:
    """Answers at `path` while it is entered; where that cannot be, the scaler goes on without."""

    def __init__(self, path: Path, answer: Answering) -> None:
        self._path, self._answer = path, answer
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> None:
        try:
            self._free_path()
            # Until its mode is set it is the owner's alone, as the umask lets nobody else write.
            self._server = await asyncio.start_unix_server(
                self._converse, self._path, limit=LONGEST_LINE
            )
            # Its group is the process', which the unit sets.
            self._path.chmod(0o660)
        except OSError as exc:
            await self._close()
            log.warning("no control socket, operators do not reach the scaler: %s", exc)

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._path.unlink(missing_ok=True)
        await self._close()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)

    def _free_path(self) -> None:
        """Remove what a killed scaler left; the lock says that there is no other."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self._path.lstat().st_mode):
                raise FileExistsError(17, "something else is there", str(self._path))
            self._path.unlink()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs it as one
        self._conversations.add(task)
        try:
            handle = partial(self._handle, by=_name_of(peer_uid(writer.get_extra_info("socket"))))
            while True:
                async with asyncio.timeout(_TIMEOUT_S):
                    line = await reader.readline()
                    if not line:
                        break
                    writer.write(reply_to(line, handle))
                    await writer.drain()
        except (OSError, ValueError, TimeoutError) as exc:
            # He is gone, is silent, or says more than a request may be long.
            log.debug("control: %s", exc)
        finally:
            self._conversations.discard(task)
            writer.close()

    def _handle(self, request: Mapping[str, Any], *, by: str) -> Mapping[str, Any]:
        fields = {name: v for name, v in request.items() if name not in ("version", "id", "verb")}
        try:
            return self._answer(str(request.get("verb")), fields, by)
        except SwarmError as exc:
            return {"ok": False, "exit_status": exc.exit_status, "error": str(exc)}
        except (ValueError, RecursionError):
            raise
        except Exception:
            log.exception("an operator's request failed")
            return {"ok": False, "error": "the scaler failed at it: its journal says how"}


def control_path(scaler: ScalerSettings) -> Path:
    """Where the scaler of this configuration answers."""
    return scaler.state_directory / "control.sock"


def ask(path: Path, verb: str, **fields: object) -> Mapping[str, Any]:
    """The scaler's answer; for commands.

    Raises:
        ConfigError: it was asked wrongly, or we are not let in.
        ScalerAwayError: no scaler answers there.
    """
    request = {"version": VERSION, "id": str(os.getpid()), "verb": verb, **fields}
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                reply = json.loads(lines.readline() or b"{}")
    except PermissionError as exc:
        user, group = _name_of(os.getuid()), _group_of(path)
        expected = f"root, or a member of the group {group} (`adduser {user} {group}`)"
        raise ConfigError.of(str(path), f"user {user}, who is not let in", expected) from exc
    except (OSError, ValueError) as exc:
        raise ScalerAwayError(
            f"no scaler answers at {path} ({exc}): is swarm-scaler.service active on this host?"
        ) from exc
    if "ok" not in reply:
        raise ScalerAwayError(f"the scaler at {path} broke off: its journal says why")
    if not reply["ok"]:
        away = reply.get("exit_status") == ScalerAwayError.exit_status
        raise (ScalerAwayError if away else ConfigError)(str(reply["error"]))
    return {name: value for name, value in reply.items() if name not in ("version", "id", "ok")}


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name[:64]
    except KeyError:
        return f"uid {uid}"


def _group_of(path: Path) -> str:
    gid = path.stat().st_gid
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)

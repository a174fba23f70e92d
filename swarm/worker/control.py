r"""The socket by which a host's operators reach an instance: one JSON object a line, each way.

    {"version": 1, "id": "7", "verb": "cancel", "task_id": "..."}
    {"version": 1, "id": "7", "ok": true, "outcome": "cancelled"}
    {"version": 1, "id": "8", "ok": false, "error": "no verb 'dance'; there is: cancel, drain, ..."}

A reply carries its request's id, so that one which is older than a request proves nothing. Who may
connect is decided by the directory, and by whom the kernel says it is. The server has a thread of
its own: a solo worker's main thread is in its task.
"""

from __future__ import annotations

import json
import logging
import os
import pwd
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

VERSION = 1
#: Seconds that one who has connected may take for his request, and to read the reply.
_TIMEOUT_S = 5.0
_LONGEST_LINE = 65_536
#: As whom the scaler logs in to a host.
_OPERATOR = "swarm-scaler"
#: What the kernel says of a user that the unit's user namespace does not know (PrivateUsers=).
_UNMAPPED_UID = 65_534

#: Given the request, returns the reply's own fields; raises ValueError for a wrong request.
Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class ControlServer:
    """Answers at `path`, one connection after the other."""

    def __init__(self, path: Path, handlers: Mapping[str, Handler]) -> None:
        self._path = path
        self._handlers = dict(handlers)
        self._socket: socket.socket | None = None
        self._uids = _trusted_uids()

    def start(self) -> None:
        """Listen; where that cannot be, a warning says so and the instance goes on without."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._path.unlink(missing_ok=True)
            listening.bind(str(self._path))
            # The group is the directory's.
            self._path.chmod(0o660)
            listening.listen(8)
        except OSError as exc:
            listening.close()
            log.warning(
                "no control socket: tasks that run here cannot be cancelled, nor can it be drained",
                extra={"fields": {"path": self._path, "reason": str(exc)}},
            )
            return
        self._socket = listening
        threading.Thread(target=self._serve, args=(listening,), name="control", daemon=True).start()

    def stop(self) -> None:
        if self._socket is not None:
            self._path.unlink(missing_ok=True)
            # Ends the wait for the next connection.
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
            self._socket = None

    def close_inherited(self) -> None:
        """In a pool process: it would keep the socket open, and never answer."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(_TIMEOUT_S)
                try:
                    self._answer(connection)
                except OSError as exc:
                    log.debug("control: %s", exc)
                except Exception:
                    log.exception("a request of an operator failed")

    def _answer(self, connection: socket.socket) -> None:
        uid = _peer_uid(connection)
        with connection.makefile("rb") as lines:
            while line := lines.readline(_LONGEST_LINE):
                reply = (
                    self.reply_to(line)
                    if uid in self._uids
                    else {"ok": False, "error": f"user {uid} may not control this instance"}
                )
                connection.sendall(json.dumps({"version": VERSION, **reply}).encode() + b"\n")

    def reply_to(self, line: bytes) -> dict[str, Any]:
        """The reply to one line, whatever is in it."""
        request: Any = None
        try:
            request = json.loads(line)
            fields = {"ok": True, **self._handle(request)}
        except (ValueError, RecursionError) as exc:
            fields = {"ok": False, "error": str(exc)[:500]}
        return {"id": request.get("id") if isinstance(request, dict) else None, **fields}

    def _handle(self, request: object) -> Mapping[str, Any]:
        if not isinstance(request, dict):
            raise ValueError("not a JSON object")  # noqa: TRY004 - wrong input, as the rest
        if request.get("version") != VERSION:
            raise ValueError(f"version {request.get('version')!r}, expected {VERSION}")
        handler = self._handlers.get(str(request.get("verb")))
        if handler is None:
            verbs = ", ".join(self._handlers)
            raise ValueError(f"no verb {request.get('verb')!r}; there is: {verbs}")
        return handler(request)


def _peer_uid(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def _trusted_uids() -> frozenset[int]:
    uids = {0, os.getuid()}
    try:
        uids.add(pwd.getpwnam(_OPERATOR).pw_uid)
    except KeyError:
        log.debug("no user %s here", _OPERATOR)
    if not _sees_all_users():
        # It cannot tell the operator from others then; the directory lets nobody else in.
        uids.add(_UNMAPPED_UID)
    return frozenset(uids)


def _sees_all_users() -> bool:
    words = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    return words[:3] == ["0", "0", "4294967295"]

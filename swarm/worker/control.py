"""The socket by which a host's operators reach an instance (`swarm.control_protocol`).

    {"version": 1, "id": "7", "verb": "cancel", "task_id": "..."}
    {"version": 1, "id": "7", "ok": true, "outcome": "cancelled"}

Who may connect is decided by the directory, and by whom the kernel says it is. The server has a
thread of its own: a solo worker's main thread is in its task.
"""

from __future__ import annotations

import logging
import os
import pwd
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swarm.control_protocol import LONGEST_LINE, Handler, peer_uid, refusal, reply_to

log = logging.getLogger(__name__)

#: Seconds that one who has connected may take for his request, and to read the reply.
_TIMEOUT_S = 5.0
#: As whom the scaler logs in to a host.
_OPERATOR = "swarm-scaler"
#: What the kernel says of a user that the unit's user namespace does not know (PrivateUsers=).
_UNMAPPED_UID = 65_534


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
        uid = peer_uid(connection)
        with connection.makefile("rb") as lines:
            while line := lines.readline(LONGEST_LINE):
                connection.sendall(
                    reply_to(line, self._handle)
                    if uid in self._uids
                    else refusal(f"user {uid} may not control this instance")
                )

    def _handle(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        handler = self._handlers.get(str(request.get("verb")))
        if handler is None:
            verbs = ", ".join(self._handlers)
            raise ValueError(f"no verb {request.get('verb')!r}; there is: {verbs}")
        return handler(request)


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

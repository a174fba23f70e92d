"""How the sockets of instances and of the scaler are spoken to: one JSON object a line, each way.

    {"version": 1, "id": "7", "verb": "drain"}
    {"version": 1, "id": "7", "ok": true, ...}
    {"version": 1, "id": "8", "ok": false, "error": "no verb 'dance'; there is: cancel, drain, ..."}

A reply carries its request's id, so that one which is older than a request proves nothing.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, Protocol

VERSION = 1
#: Bytes of a request, newline included.
LONGEST_LINE = 65_536

_LONGEST_ERROR = 500
_CREDENTIALS = struct.Struct("3i")

Handler = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Given a request, returns the reply's own fields; raises ValueError for a wrong one."""


class Connection(Protocol):
    """What of a socket tells who is at its other end."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes: ...


def reply_to(line: bytes, handle: Handler) -> bytes:
    """The reply to one line, whatever is in it; `handle` sees requests of this version only."""
    request: Any = None
    try:
        request = json.loads(line)
        fields = {"ok": True, **handle(_checked(request))}
    except (ValueError, RecursionError) as exc:
        fields = {"ok": False, "error": str(exc)[:_LONGEST_ERROR]}
    return _line(id=request.get("id") if isinstance(request, dict) else None, **fields)


def refusal(error: str) -> bytes:
    """The reply to one whose requests are not even read."""
    return _line(ok=False, error=error)


def peer_uid(connection: Connection) -> int:
    """Who is at the other end of a unix socket, by the kernel's word."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return int(uid)


def _line(**fields: Any) -> bytes:
    return json.dumps({"version": VERSION, **fields}).encode() + b"\n"


def _checked(request: object) -> Mapping[str, Any]:
    if not isinstance(request, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - wrong input, as the rest
    if request.get("version") != VERSION:
        raise ValueError(f"version {request.get('version')!r}, expected {VERSION}")
    return request

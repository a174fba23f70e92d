"""The service side of `sd_notify(3)`: a datagram to the socket that systemd names."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

_READY_TIMEOUT_S = 5.0
#: Bytes of a status line: systemd passes over a datagram of more than 4096, whatever else it says.
_LONGEST_STATUS = 2000


class Notifier:
    """Tells systemd how the service is. Without `NOTIFY_SOCKET` every call does nothing."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the zero byte of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    @property
    def under_systemd(self) -> bool:
        return self._socket is not None

    def ready(self, status: str) -> None:
        # Said once, so it waits for room in systemd's queue.
        self._send(f"READY=1\nSTATUS={_cut(status)}", wait_s=_READY_TIMEOUT_S)

    def status(self, status: str) -> None:
        self._send(f"STATUS={_cut(status)}")

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def stopping(self, status: str) -> None:
        self._send(f"STOPPING=1\nSTATUS={_cut(status)}")

    def _send(self, message: str, *, wait_s: float = 0.0) -> None:
        if self._socket is None:
            return
        self._socket.settimeout(wait_s)
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            # systemd is reloading or its queue is full: the next message says it again.
            return


def _cut(status: str) -> str:
    encoded = status.encode()
    if len(encoded) <= _LONGEST_STATUS:
        return status
    return f"{encoded[:_LONGEST_STATUS].decode(errors='ignore')}..."

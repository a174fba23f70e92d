"""Log records to journald by its native protocol, each with fields of its own.

Lines on stderr reach the journal as text alone; here `journalctl SWARM_TASK_ID=...` finds a
record. The protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/. Ours, because python-systemd
must be compiled on each host, and the pure packages name their fields for themselves.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import socket
import struct
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

SOCKET = Path("/run/systemd/journal/socket")

PRIORITIES = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}
#: journald drops a field with any other name.
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
#: What a socket says of a datagram that it does not take; a file descriptor it does.
_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
#: Seconds that `flush` waits for journald to have read what was sent.
_FLUSH_S = 1.0


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether systemd has connected the stream to the journal (JOURNAL_STREAM, systemd.exec(5))."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def encode(fields: Mapping[str, object]) -> bytes:
    """The fields as journald reads them; those whose name it would refuse are left out."""
    parts = []
    for name, value in fields.items():
        if not _NAME.fullmatch(name):
            continue
        text = str(value).encode(errors="backslashreplace")
        if b"\n" in text:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(text)) + text + b"\n")
        else:
            parts.append(name.encode() + b"=" + text + b"\n")
    return b"".join(parts)


class JournalHandler(logging.Handler):
    """Sends each record as one entry, with what `context` says of it and its own `fields`.

    A field `seconds` becomes SWARM_SECONDS. What journald does not take goes to `fallback`.
    """

    def __init__(
        self,
        context: Callable[[logging.LogRecord], Mapping[str, str]],
        fallback: logging.Handler,
    ) -> None:
        super().__init__()
        self._context = context
        self._fallback = fallback
        # Pool processes inherit it: the kernel tells journald which process sends.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._send(encode(self._fields(record)))
        except OSError:
            self._fallback.emit(record)
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)

    def flush(self) -> None:
        """Wait until journald has read everything: it asks /proc which unit the sender is of."""
        unread = bytearray(4)
        deadline = time.monotonic() + _FLUSH_S
        try:
            while time.monotonic() < deadline:
                fcntl.ioctl(self._socket, termios.TIOCOUTQ, unread)
                if not any(unread):
                    return
                time.sleep(0.005)
        except OSError:
            return

    def close(self) -> None:
        self._socket.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> dict[str, object]:
        own = getattr(record, "fields", None) or {}
        return {
            "MESSAGE": self.format(record),
            "PRIORITY": PRIORITIES.get(record.levelno, 6),
            "SYSLOG_IDENTIFIER": "swarm",
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": record.lineno,
            "CODE_FUNC": record.funcName,
            "THREAD_NAME": record.threadName,
            **self._context(record),
            **{f"SWARM_{name.upper()}": value for name, value in own.items()},
        }

    def _send(self, entry: bytes) -> None:
        # By name each time: journald may have been started anew.
        try:
            self._socket.sendto(entry, str(SOCKET))
        except OSError as exc:
            if exc.errno not in _TOO_LARGE:
                raise
            self._send_file(entry)

    def _send_file(self, entry: bytes) -> None:
        memory = os.memfd_create("swarm-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        with os.fdopen(memory, "wb") as file:
            file.write(entry)
            file.flush()
            # journald reads only what can no longer change.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, seals)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", memory))]
            self._socket.sendmsg([b""], rights, 0, str(SOCKET))

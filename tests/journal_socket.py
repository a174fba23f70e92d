"""journald's end of its native protocol: what arrives, parsed by the protocol's own rules."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import threading
from pathlib import Path

Entry = dict[str, str]


class JournalSocket:
    """Listens at `path` all the time; `entries` are what has come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self.files = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(0.1)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join()
        self._socket.close()

    def of_task(self, task_id: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.get("SWARM_TASK_ID") == task_id]

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, 1 << 20, 1)
            except TimeoutError:
                continue
            if descriptors:
                data = self._read_file(descriptors[0])
            self.entries.append(parse(data))

    def _read_file(self, descriptor: int) -> bytes:
        # As journald demands: a file that its sender can no longer change.
        wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
        assert fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & wanted == wanted
        self.files += 1
        with os.fdopen(descriptor, "rb") as file:
            return os.pread(file.fileno(), 1 << 24, 0)


def parse(data: bytes) -> Entry:
    """https://systemd.io/JOURNAL_NATIVE_PROTOCOL/: `NAME=value\\n`, or name, length and value."""
    entry: Entry = {}
    while data:
        line, _, rest = data.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
            data = rest
        else:
            name = line
            [length] = struct.unpack("<Q", rest[:8])
            value, end, data = (
                rest[8 : 8 + length],
                rest[8 + length : 9 + length],
                rest[9 + length :],
            )
            assert end == b"\n"
        entry[name.decode()] = value.decode()
    return entry

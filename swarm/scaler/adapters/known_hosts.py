"""The host keys that are accepted over SSH, as the file `scaler.known_hosts` has them."""

from __future__ import annotations

from pathlib import Path

import asyncssh


class KnownHosts:
    """The file, read anew when it was replaced.

    asyncssh would read it for each connection. It has a line for each host, so that the cost of
    connecting to all of them would grow with the square of their number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version: tuple[int, ...] | None = None
        self._hosts = asyncssh.SSHKnownHosts()

    def read(self) -> asyncssh.SSHKnownHosts:
        """What it holds now.

        Raises:
            OSError: it cannot be read.
            ValueError: it cannot be understood.
        """
        # Before it is read: one that is replaced meanwhile is read again next time.
        found = self.path.stat()
        version = (found.st_ino, found.st_mtime_ns, found.st_size)
        if version != self._version:
            self._hosts = asyncssh.read_known_hosts(str(self.path))
            self._version = version
        return self._hosts

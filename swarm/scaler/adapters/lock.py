"""One scaler at a time on a host: a lock that ends with the process, however that ends.

The file tells who holds it. Only the lock counts: what the file says may be of an earlier holder.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from swarm.errors import AlreadyRunningError, ConfigError

log = logging.getLogger(__name__)

_LONGEST = 4096


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path`. The kernel gives it back as soon as the process is gone.

    Raises:
        AlreadyRunningError: another process holds it; says which.
        ConfigError: its directory is missing or not ours.
    """
    try:
        lock = _open(path)
    except OSError as exc:
        expected = "a directory in which the scaler may write"
        reason = f"{path.parent} ({exc.strerror})"
        raise ConfigError.of("scaler.data_directory", reason, expected) from exc
    # No child inherits it: descriptors of Python's are closed when another program is executed.
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise AlreadyRunningError(f"another scaler runs here: {_holder(lock, path)}") from exc
        _tell(lock, path)
        yield
    finally:
        os.close(lock)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as exc:
        if exc.errno != errno.EROFS:
            raise
    # A lock needs no room, and no right to write.
    return os.open(path, os.O_RDONLY)


def _tell(lock: int, path: Path) -> None:
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
    try:
        # First, as it needs no room: rather no word than one about somebody else.
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps(holder).encode(), 0)
    except OSError as exc:
        log.warning("%s does not tell who holds it: %s", path, exc.strerror)


def _holder(lock: int, path: Path) -> str:
    try:
        holder = json.loads(os.pread(lock, _LONGEST, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['pid']} on {holder['host']}, since {since}"
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return f"somebody holds {path}, which does not say who"

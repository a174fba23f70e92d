"""Processes on loopback that tests and benchmarks start, and systemd's end of sd_notify."""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.exceptions import RedisError

PASSWORD = "s3cret"
#: The same program is the server when it is called so; installing redis-server would start one.
REDIS = Path("/usr/bin/redis-check-rdb")


def free_port() -> int:
    """A port of loopback that is the caller's: no other caller gets it for long.

    It lies below those that the kernel gives to outgoing connections (from 32768 on by default): of
    those, any connection may take one between its choice and its use.
    """
    return _next_port("port", range(10_000, 20_000), 1)


def free_port_base() -> int:
    """A `metrics_port_base` whose block of a hundred is the caller's."""
    return _next_port("base", range(20_000, 32_600, 100), 10)


def _next_port(kind: str, ports: range, needed: int) -> int:
    """All processes of this user take turns: the last one given is in a file of theirs."""
    path = Path(tempfile.gettempdir()) / f"swarm-free-{kind}-{os.getuid()}"
    with path.open("a+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        last = file.read()
        start = ports.index(int(last)) + 1 if last else 0
        turn = itertools.chain(ports[start:], ports[:start])
        port = next(port for port in turn if all(map(_is_free, range(port, port + needed))))
        file.truncate(0)
        file.write(str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], Any], *, timeout_s: float = 20.0, what: str = "it") -> Any:
    """The first true value of `condition`.

    Raises:
        TimeoutError: there was none.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise TimeoutError(f"{what} did not happen within {timeout_s:g} s")


def flower_answers(port: int) -> bool:
    """Whatever it says: an error is an answer too."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=2):
            return True
    except urllib.error.HTTPError as exc:
        exc.close()
        return True
    except OSError:
        return False


@dataclass
class RedisServer:
    """A Redis with a password; `options` are words for its command line.

    A context manager around its process, which may also be started and stopped in between.
    """

    directory: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None
    options: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        words = f"--port {self.port} --bind 127.0.0.1 --requirepass {PASSWORD} --save".split()
        log = (self.directory / "redis.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                ["redis-server", *words, "", "--dir", str(self.directory), *self.options],
                executable=REDIS,
                stdout=log,
                stderr=log,
            )
        with self.connect() as redis:
            wait_until(lambda: _answers(redis), what="Redis")

    def connect(self) -> Redis:
        return Redis.from_url(self.url)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


def _answers(redis: Redis) -> bool:
    try:
        return bool(redis.ping())
    except (RedisError, OSError):
        return False


class NotifySocket:
    """systemd's end of sd_notify; read all the time, as its queue is short."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "notify"
        self.told: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(self.path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while (datagram := self._socket.recv(8192)) != b"END":
            self.told += datagram.decode().splitlines()

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"END", str(self.path))
        self._thread.join()
        self._socket.close()
        # For the next one here.
        self.path.unlink()

"""Connections that keep to one time limit for all they do, and leave nothing behind."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

import redis

from swarm.brokers import classify

#: `struct linger`: on, for 0 s.
_NO_LINGER = struct.pack("ii", 1, 0)
_sockets: WeakSet[socket.socket] = WeakSet()


class LimitedError(redis.ConnectionError, redis.ResponseError):
    """The broker takes no more requests: to whoever consumes as if the connection were lost.

    Celery's consumer knows what to do without a connection; an error reply would end its worker.
    """


#: When this thread's patience ends, in monotonic seconds.
_patience_ends: ContextVar[float | None] = ContextVar("patience_ends", default=None)


@contextmanager
def patient_for(seconds: float) -> Iterator[None]:
    """What is done on patient connections inside is over by then, or has failed.

    The time limits of a socket are for one address, one step of the handshake and one reply each;
    to enter and to ask takes several of these. No limit reaches the resolver.
    """
    token = _patience_ends.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _patience_ends.reset(token)


def _at_most(seconds: float | None) -> float | None:
    """The time limit of one step; 0 would mean not to wait at all."""
    ends = _patience_ends.get()
    if ends is None:
        return seconds
    left_s = max(0.001, ends - time.monotonic())
    return left_s if seconds is None else min(seconds, left_s)


def patient(connection_class: type[Any]) -> type[Any]:
    """Connections that heed `patient_for`."""

    class PatientConnection(connection_class):
        _is_connecting = False

        @property
        def socket_connect_timeout(self) -> float | None:
            """Asked for each address that a name has."""
            seconds: float | None = self._socket_connect_timeout
            return _at_most(seconds) if self._is_connecting else seconds

        @property
        def socket_timeout(self) -> float | None:
            """Of the handshake too; whoever keeps it for later gets the usual one."""
            seconds: float | None = self._socket_timeout
            return _at_most(seconds) if self._is_connecting else seconds

        def _connect(self) -> Any:
            self._is_connecting = True
            try:
                connected = super()._connect()
            finally:
                self._is_connecting = False
            connected.settimeout(self.socket_timeout)
            return connected

        def read_response(self, *args: Any, **options: Any) -> Any:
            if _patience_ends.get() is None or self._sock is None:
                return super().read_response(*args, **options)
            self._sock.settimeout(_at_most(self.socket_timeout))
            try:
                return super().read_response(*args, **options)
            finally:
                if self._sock is not None:
                    self._sock.settimeout(self.socket_timeout)

    return PatientConnection


def abortive(connection_class: type[Any]) -> type[Any]:
    """Connections that take back, as they close, what the server has not got yet.

    Else the system goes on sending it: after a network's outage a question for messages, or a
    release, would arrive behind those of the connection that took this one's place.
    """

    class AbortiveConnection(connection_class):
        def _connect(self) -> Any:
            connected = super()._connect()
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            _sockets.add(connected)
            return connected

        def read_response(self, *args: Any, **options: Any) -> Any:
            try:
                return super().read_response(*args, **options)
            except redis.OutOfMemoryError:
                # Scripts that drain run all the same, and publishing says it in its own words.
                raise
            except redis.ResponseError as exc:
                if classify(exc).state == "limited":
                    raise LimitedError(str(exc)) from exc
                raise

    return AbortiveConnection


def _close_inherited() -> None:
    """A pool process has copies of its parent's: the last one to close is the one that counts."""
    for each in list(_sockets):
        each.close()


os.register_at_fork(after_in_child=_close_inherited)

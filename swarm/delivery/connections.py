"""Connections of a channel that leave nothing behind when they close."""

from __future__ import annotations

import os
import socket
import struct
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

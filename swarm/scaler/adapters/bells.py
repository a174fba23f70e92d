"""Waits for the bells of deserted queues: whoever publishes a task rings (lua/common.lua).

`BLMOVE bell bell` waits for an element and puts it back in the same step, so a ring is heard and
stays for the worker it is meant for. It costs one request in four minutes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from contextlib import suppress

import redis.asyncio
from redis.exceptions import NoPermissionError, OutOfMemoryError, RedisError

from swarm.brokers import CONNECT_TIMEOUT_S, KEEPALIVE, QUIET, SOCKET_TIMEOUT_S, Broker
from swarm.delivery import keys

log = logging.getLogger(__name__)

#: Seconds of one wait; hosted services close connections that were idle for 300 s.
_WAIT_S = 240
#: Seconds without an answer after which the bell is known to be silent.
_SILENT_AFTER_S = 0.5
#: Seconds until the next attempt: after most failures, and after no right to BLMOVE or no memory
#: left, which last longer.
_RETRY_S = 10.0
_REFUSED_RETRY_S = 600.0


class Bells:
    """One listener for each deserted queue; an async context manager that ends them."""

    def __init__(self, broker: Broker, on_ring: Callable[[], None], *, alone: bool = True) -> None:
        """Unless the broker is alone, it is named in the journal."""
        self._broker = broker
        self._on_ring = on_ring
        self._of_broker = "" if alone else f" of the {broker.name}"
        self._listeners: dict[str, _Listener] = {}

    @property
    def silent(self) -> frozenset[str]:
        """Queues whose bell is listened to and has not rung."""
        return frozenset(queue for queue, each in self._listeners.items() if each.silent)

    def listen(self, queues: Collection[str]) -> None:
        """Listen to these queues' bells and no others."""
        for queue in [queue for queue in self._listeners if queue not in queues]:
            self._listeners.pop(queue).task.cancel()
        for queue in queues:
            if queue not in self._listeners:
                self._listeners[queue] = _Listener(
                    self._broker, queue, f"{queue}{self._of_broker}", self._on_ring
                )

    def is_down(self, queue: str) -> None:
        """The bell was seen down: its next ring is worth hearing."""
        if queue in self._listeners:
            self._listeners[queue].down.set()

    async def close(self) -> None:
        tasks = [each.task for each in self._listeners.values()]
        self.listen(())
        await asyncio.gather(*tasks, return_exceptions=True)


class _Listener:
    def __init__(
        self, broker: Broker, queue: str, called: str, on_ring: Callable[[], None]
    ) -> None:
        self._broker = broker
        self._queue = queue
        self._called = called
        self._on_ring = on_ring
        self._trouble: str | None = None
        self.silent = False
        self.down = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"bell of {called}")

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (NoPermissionError, OutOfMemoryError) as exc:
                self._tell(str(exc))
                await asyncio.sleep(_REFUSED_RETRY_S)
            except (RedisError, OSError) as exc:
                self._tell(str(exc))
                await asyncio.sleep(_RETRY_S)

    async def _listen(self) -> None:
        """Hear ring after ring, on one connection."""
        client = redis.asyncio.Redis.from_url(
            self._broker.url,
            single_connection_client=True,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=_WAIT_S + SOCKET_TIMEOUT_S,
            socket_keepalive=True,
            socket_keepalive_options=KEEPALIVE,
            retry=None,
            **QUIET,
        )
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S + SOCKET_TIMEOUT_S):
                await client.initialize()
            while True:
                if await self._rings(client):
                    self.silent = False
                    self.down.clear()
                    self._on_ring()
                    # As long as it is up, each wait would end at once.
                    await self.down.wait()
        finally:
            self.silent = False
            # Its connection is cut, in whatever state it is.
            with suppress(RedisError, OSError):
                await client.aclose()

    async def _rings(self, client: redis.asyncio.Redis) -> bool:
        bell = keys.bell(self._queue)
        waiting = asyncio.ensure_future(client.blmove(bell, bell, _WAIT_S, "LEFT", "RIGHT"))
        try:
            await asyncio.wait([waiting], timeout=_SILENT_AFTER_S)
            if not waiting.done():
                self.silent = True
            if self.silent and self._trouble is not None:
                log.info("tasks for queue %s are announced again", self._called)
                self._trouble = None
            return await waiting is not None
        finally:
            waiting.cancel()
            # It fails as it leaves its connection, which has nobody to tell.
            await asyncio.gather(waiting, return_exceptions=True)

    def _tell(self, trouble: str) -> None:
        if self._trouble is None:
            log.warning(
                "tasks for queue %s are not announced, it is looked at instead: %s",
                self._called,
                trouble,
            )
        self._trouble = trouble

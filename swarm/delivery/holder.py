"""Who holds messages in this process: its name in Redis, what it has, and its lease.

An instance has one holder for its whole life, over every reconnection. A task that runs for long
keeps a lease alive, renewed by a thread because a solo worker's loop is busy meanwhile; whoever
holds nothing costs nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import redis

from swarm.brokers import Verdict
from swarm.delivery.intake import Intake
from swarm.delivery.pending_ends import PendingEnds
from swarm.delivery.scripts import RENEW
from swarm.delivery.spool import Spool

log = logging.getLogger(__name__)

#: Seconds a lease lasts: a host that vanished is given up after it.
LEASE_S = 60
#: Seconds between renewals; two may fail before the lease is over.
RENEWAL_S = 20.0
#: Seconds something is held before it needs a lease. Shorter tasks never pay for one.
LEASE_AFTER_S = 15.0


@dataclass(frozen=True, slots=True)
class HolderName:
    """`<host>:<pool>:<N>:<invocation>`; the first three name the instance over its restarts."""

    instance: str
    invocation: str
    is_unit: bool

    def __str__(self) -> str:
        return f"{self.instance}{self.invocation}"


def name_holder(environ: Mapping[str, str] = os.environ) -> HolderName:
    """A unit's instance by its variables, anything else by host and process."""
    host = environ.get("SWARM_HOST") or socket.gethostname()
    pool, number = environ.get("SWARM_POOL"), environ.get("SWARM_INSTANCE")
    invocation = environ.get("INVOCATION_ID")
    if pool and number:
        instance = f"{host}:{pool}:{number}:"
        return HolderName(instance, invocation or uuid4().hex, is_unit=invocation is not None)
    return HolderName(f"{host}:process:{os.getpid()}:", uuid4().hex, is_unit=False)


class Holder:
    """What this process has taken and not ended.

    `delivered` and `dirty` are what kombu's QoS counts by; several channels share them, because a
    task goes on when its channel is lost.
    """

    def __init__(self, name: HolderName | None = None) -> None:
        """A worker's, by its name; without one that of a channel, for as long as it is open."""
        self.serves_worker = name is not None
        self.name = name or HolderName(
            f"{socket.gethostname()}:channel:{os.getpid()}:", uuid4().hex, is_unit=False
        )
        self._pid = os.getpid()
        self._closed = threading.Event()
        self.delivered: OrderedDict[str, Any] = OrderedDict()
        self.dirty: set[str] = set()
        #: Delivery tag -> how the pool process died under it.
        self.deaths: dict[str, str] = {}
        #: Tags of the messages that are being worked on; of tasks, Celery's worker knows.
        self.running: Callable[[], set[str]] = lambda: set(self.delivered) - self.dirty
        self.pending_ends = PendingEnds()
        #: Where pool processes leave the ends of tasks that the broker does not take.
        self.spool: Spool | None = None
        self.intake = Intake()
        #: Called with the id of a revoked task that was taken.
        self.on_revoked: Callable[[str], None] = lambda _: None
        #: Called with a task's name when the pool process that ran it died.
        self.on_death: Callable[[str], None] = lambda _: None
        #: Called with what an attempt to connect came to; not with those that went well.
        self.on_broker: Callable[[Verdict], None] = lambda _: None
        self._client: redis.Redis | None = None
        self._since: dict[str, float] = {}
        self._lock = threading.Lock()
        self._keeper: threading.Thread | None = None

    @property
    def is_inherited(self) -> bool:
        """Whether this is a pool process, whose parent has made it. No thread of it lives here."""
        return os.getpid() != self._pid

    @property
    def client(self) -> redis.Redis:
        """With connections of its own, because channels come and go.

        Raises:
            RuntimeError: it has never been connected.
        """
        if self._client is None:
            raise RuntimeError("only who has been connected has a client")
        return self._client

    def connect(self, connect: Callable[[], redis.Redis]) -> None:
        """Have a client from now on."""
        with self._lock:
            if self._client is None:
                self._client = connect()

    def took(self, tag: str, connect: Callable[[], redis.Redis], *, again: bool) -> None:
        """Hold a message; `again` if somebody, perhaps this holder, had it before.

        The script that took it has then set a lease, which is to be kept from now on: to the
        reaper two takings by one holder look like one.
        """
        self.pending_ends.discard(tag)
        self.connect(connect)
        with self._lock:
            self._since[tag] = float("-inf") if again else time.monotonic()
            if self._keeper is None:
                self._keeper = threading.Thread(
                    target=self._keep_lease, args=(self.client,), name="lease", daemon=True
                )
                self._keeper.start()

    @property
    def has_taken(self) -> bool:
        """Whether anything was ever taken."""
        return self._keeper is not None

    @property
    def holds_messages(self) -> bool:
        """Whether anything was taken and has not ended."""
        with self._lock:
            return bool(self._since)

    def ended(self, tag: str) -> None:
        with self._lock:
            self._since.pop(tag, None)
        if self.spool is not None and self.spool.holds(tag):
            self.pending_ends.add(tag, self.send_spooled)

    def send_spooled(self) -> None:
        """Tell the broker of the ends on the disk, those of earlier workers of this host too.

        Raises:
            redis.RedisError: it is still away.
        """
        if self.spool is not None and (sent := self.spool.send(self.client)):
            log.info("ends of tasks that were on the disk are sent: %d", sent)

    def keep_only(self, tags: set[str]) -> None:
        """Forget what was taken and never begun: it goes back."""
        for tag in [tag for tag in self.delivered if tag not in tags]:
            del self.delivered[tag]
            self.dirty.discard(tag)
            self.ended(tag)

    def needs_lease(self, now: float) -> bool:
        """Whether anything has been held for long; `now` in monotonic seconds."""
        with self._lock:
            return any(now - since >= LEASE_AFTER_S for since in self._since.values())

    def close(self) -> None:
        """No lease any more."""
        self._closed.set()
        self.pending_ends.close()

    def _keep_lease(self, client: redis.Redis) -> None:
        renewed = True
        while not self._closed.wait(RENEWAL_S):
            if not self.needs_lease(time.monotonic()):
                continue
            try:
                RENEW.run(client, str(self.name), LEASE_S)
            except (redis.RedisError, OSError) as exc:
                if renewed:
                    log.warning("lease not renewed", extra={"fields": {"reason": str(exc)}})
                renewed = False
            else:
                renewed = True
        client.close()


_worker: Holder | None = None


def worker_holder() -> Holder:
    """The holder of this process's Celery worker. Pool children inherit their parent's."""
    global _worker  # noqa: PLW0603 - Celery offers no way to hand it to pool children
    if _worker is None:
        _worker = Holder(name_holder())
    return _worker

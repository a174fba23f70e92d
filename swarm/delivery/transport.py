"""The kombu transport: Redis, with atomic hand-over instead of kombu's BRPOP and unacked hash.

It replaces four things of kombu's Redis transport (kombu 5.7, kombu/transport/redis.py), and
keeps the rest, such as connections, the event loop's poller, fanout and bindings:

- publishing is one script, safe to repeat, that rings the queue's bell;
- a waiting consumer blocks on the bells, and takes by a script that moves messages into its
  holder's own list;
- acknowledging is local where a worker consumes, because whoever ends the task has committed it
  (`swarm.delivery.results`);
- nothing is restored by itself: what a holder had is released by `swarm.delivery.release`.
"""

from __future__ import annotations

import logging
import time
from queue import Empty
from typing import Any

import redis
from celery.exceptions import ImproperlyConfigured
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport import redis as kombu_redis
from kombu.utils.encoding import bytes_to_str

from swarm.brokers import QUIET, SOCKET_TIMEOUT_S
from swarm.delivery import keys, outcome, release, scripts
from swarm.delivery.connections import abortive, patient
from swarm.delivery.holder import Holder
from swarm.delivery.message import decode, idempotency_key, is_due, note_wait, successor_for
from swarm.delivery.publish import publish
from swarm.delivery.qos import QoS

log = logging.getLogger(__name__)

#: Seconds an idle consumer waits for a bell. Hosted services close connections that were idle for
#: 300 s, and each wait is a command they count.
WAIT_S = 240
#: Seconds after which an idle consumer looks, bell or no bell.
_LOOK_S = 3600
#: Seconds until the reply to a script counts as overdue.
_REPLY_S = 3.0
#: Seconds between two looks at expiring bindings, of which only Flower has any. Each look sweeps,
#: which is a command.
_BINDINGS_S = 1200


class Channel(kombu_redis.Channel):
    """A channel whose messages move by scripts."""

    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._own_holder: Holder | None = None
        self._take_known = True
        self._no_ack_queues: set[str] = set()
        # The next question of the consuming connection: for messages, or for a bell.
        self._look = True
        self._asked_for_messages = False
        # Whether it has taken a ring, which may have been the one for who is to watch the schedule.
        self._has_ring = False
        self._looked_at = float("-inf")
        # When the earliest scheduled message is due that this channel watches, monotonic.
        self._due_at: float | None = None
        self._bindings_at = float("-inf")
        super().__init__(*args, **kwargs)
        if self.global_keyprefix:
            raise ImproperlyConfigured("global_keyprefix is not supported by this transport")

    @property
    def holder(self) -> Holder:
        """The worker's, on its connection; else one of this channel's own."""
        if self._own_holder is None:
            self._own_holder = self.connection.holder or Holder()
        return self._own_holder

    @property
    def serves_worker(self) -> bool:
        """Whether whoever ends a task commits it. Elsewhere an acknowledgement is the end."""
        return self.holder.serves_worker

    def connect_anew(self) -> redis.Redis:
        """A client on a connection of its own, for another thread."""
        return redis.Redis(connection_pool=redis.ConnectionPool(**self._connparams()))

    def release(self, needle: str, mode: release.Mode, reason: str) -> None:
        """Let go of one held message, named by its tag or its whole text."""
        with self.conn_or_acquire() as client:
            release.release(
                client, str(self.holder.name), mode, reason, choice="only", needles=[needle]
            )

    # -- publishing

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        key = self._q_for_pri(queue, self._get_message_priority(message, reverse=False))
        successor = successor_for(key, message)
        if outcome.collect(successor):
            return
        with self.conn_or_acquire() as client:
            publish(
                client,
                successor,
                tag=message["properties"]["delivery_tag"],
                idempotency_key=idempotency_key(message),
            )
            # Only for a queue that has x-expires.
            self._maybe_update_queues_expire(client, queue)

    # -- consuming; kombu's poller calls these where it would send and read BRPOP

    def basic_consume(self, queue: str, *args: Any, **kwargs: Any) -> Any:
        self._no_ack_queues.discard(queue)
        if kwargs.get("no_ack", args[0] if args else False):
            self._no_ack_queues.add(queue)
        consumer_tag = super().basic_consume(queue, *args, **kwargs)
        if queue not in self.active_fanout_queues:
            self._resume()
            self._interrupt()
        return consumer_tag

    def _resume(self) -> None:
        """Make the holder known and return what it holds and does not run.

        That is what was taken when the connection broke, and what earlier runs of this instance
        left when the broker was away at their end. An end that is still to be sent keeps its
        message here.
        """
        holder = self.holder
        holder.pending_ends.send()
        if holder.spool is not None:
            # Before anything is returned: what is done need not be done again.
            holder.connect(self.connect_anew)
            holder.send_spooled()
        running = holder.running() | holder.pending_ends.tags
        with self.conn_or_acquire() as client:
            release.resume(client, holder.name, self.active_queues, running)
        holder.keep_only(running)

    def _interrupt(self) -> None:
        """End a wait for the wrong bells. A ring that gets lost is made up for by the next."""
        self._look = self._has_ring = True
        if self._in_poll and not self._asked_for_messages:
            self.client.connection.disconnect()

    def _basic_cancel(self, consumer_tag: str) -> Any:
        result = super()._basic_cancel(consumer_tag)
        self._interrupt()
        return result

    def _brpop_start(self, timeout: float | None = None) -> None:
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        wait_s = self._wait_s(timeout)
        self._asked_for_messages = self._look or wait_s <= 0
        intake = self.holder.intake
        # kombu's own stop (`can_consume`) would leave a ring unread that is meant for others too.
        if not (intake.begin_taking() if self._asked_for_messages else intake.is_open):
            self._leave_to_others()
            return
        connection = self.client.connection
        self._in_poll = connection
        self._brpop_sent_at = time.monotonic()
        if self._asked_for_messages:
            self.brpop_timeout = _REPLY_S
            self._ask_for_messages(queues)
        else:
            self.brpop_timeout = wait_s
            # 0 would mean for ever.
            connection.send_command("BLPOP", *map(keys.bell, queues), max(0.001, round(wait_s, 3)))

    def _wait_s(self, timeout: float | None) -> float:
        wait_s = timeout or self.connection.wait_s
        if self._due_at is not None:
            wait_s = min(wait_s, self._due_at - time.monotonic())
        return wait_s

    def _ask_for_messages(self, queues: list[str]) -> None:
        self._looked_at = time.monotonic()
        lists = [
            self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues
        ]
        command = scripts.TAKE.command(
            str(self.holder.name),
            self.qos.can_consume_max_estimate() or 1,
            "0" if self._due_at is None and not self._has_ring else "1",
            ",".join(queues),
            *lists,
            known=self._take_known,
        )
        self._has_ring = False
        self.client.connection.send_command(*command)

    def _brpop_read(self, **options: Any) -> bool:
        connection = self.client.connection
        if not self.holder.intake.is_open and not self._in_poll:
            # Nothing was asked: the broker closed the idle connection.
            connection.disconnect()
            raise Empty
        try:
            try:
                reply = self.client.parse_response(connection, "EVALSHA", **options)
                if not self._asked_for_messages:
                    self._has_ring = reply is not None
                    self._look = self._has_ring or self._is_look_due()
                    if reply is None:
                        raise Empty
                    if not self.holder.intake.begin_taking():
                        self._leave_to_others()
                        raise Empty
                    # At once: another turn of the loop would take longer than the reply does. It
                    # is waited for, which stock Celery does too, for its unacked hash.
                    self._ask_for_messages(self._queue_cycle.consume(len(self.active_queues)))
                    reply = self.client.parse_response(connection, "EVALSHA")
            except redis.exceptions.NoScriptError:
                self._take_known = False
                # It has led to no look.
                self._has_ring = True
                raise Empty from None
            except self.connection_errors:
                # The next turn of the loop connects again.
                connection.disconnect()
                raise
            self._take_known = True
            return self._deliver_taken(reply)
        finally:
            self._in_poll = None
            self.holder.intake.end_taking()
            self._flush_brpop_reauth()

    def _leave_to_others(self) -> None:
        """Who takes nothing now hands on the ring that it has, and the schedule that it watches.

        Where there are no others the bell stays rung, until this worker goes on.
        """
        if not self._has_ring and self._due_at is None:
            return
        with self.conn_or_acquire() as client:
            # It lets go of nothing; but it rings, if anything waits or is scheduled.
            release.release(client, str(self.holder.name), "return", "", choice="only")
        self._has_ring, self._due_at = False, None

    def _is_look_due(self) -> bool:
        """After a wait in which no bell rang.

        Something may be due; and who publishes with stock kombu rings no bell.
        """
        now = time.monotonic()
        return (self._due_at is not None and self._due_at <= now) or (
            now - self._looked_at >= _LOOK_S
        )

    def _deliver_taken(self, reply: list[Any]) -> bool:
        more, due, now, *taken = reply
        self._look = bool(more)
        self._due_at = None if due < 0 else time.monotonic() + (due - now) / 1000
        if not taken:
            raise Empty
        for at in range(0, len(taken), 3):
            self._deliver_one(*taken[at : at + 3], now=now)
        return True

    def _deliver_one(self, key: bytes, message: bytes, revoked: int, *, now: int) -> None:
        queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        try:
            payload = decode(message)
            note_wait(payload, now)
            headers = payload.get("headers") or {}
            tag = payload["properties"]["delivery_tag"]
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            log.error(  # noqa: TRY400 - the message is kept whole, the stack adds nothing
                "a message could not be read and is a dead letter now",
                extra={"fields": {"queue": queue, "reason": repr(exc)}},
            )
            self.release(message, "dead", f"not a message: {exc!r}")  # type: ignore[arg-type]
            return
        if is_due(headers):
            # Celery would count a scheduled task as one more to prefetch.
            headers["eta"] = None
        if revoked:
            self.holder.on_revoked(str(headers.get("id")))
        if queue in self._no_ack_queues:
            self.release(tag, "forget", "consumed")
        self.connection._deliver(payload, queue)  # noqa: SLF001 - as kombu's own channel does

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        message = super().basic_get(queue, no_ack=no_ack, **kwargs)
        if message is not None and no_ack:
            self.release(message.delivery_tag, "forget", "consumed")
        return message

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        """One message now, for `basic_get`."""
        lists = [self._q_for_pri(queue, priority) for priority in self.priority_steps]
        with self.conn_or_acquire() as client:
            _, _, _, *taken = scripts.TAKE.run(client, str(self.holder.name), 1, "0", queue, *lists)
        if not taken:
            raise Empty
        return decode(taken[1])

    def maybe_refresh_binding_expiry(self) -> None:
        """Kombu's timer asks each second and sweeps each minute."""
        now = time.monotonic()
        if now - self._bindings_at >= _BINDINGS_S:
            self._bindings_at = now
            super().maybe_refresh_binding_expiry()

    def close(self) -> None:
        # kombu would wait for the reply. A wait holds nothing, and what a script took meanwhile
        # is in the holder's list.
        if self._in_poll:
            self._in_poll = False
            self.holder.intake.end_taking()
        holder = self._own_holder
        if not self.closed and holder is not None and not holder.serves_worker:
            holder.close()
            if holder.has_taken:
                self._return_all()
        super().close()

    def _return_all(self) -> None:
        """A consumer that is no worker ends with its channel."""
        try:
            with self.conn_or_acquire() as client:
                release.release(client, str(self.holder.name), "return", "closed", choice="all")
        except self.connection_errors as exc:
            log.warning("not returned, the reaper will", extra={"fields": {"reason": str(exc)}})

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        # PING before a command is a command too.
        parameters.update(health_check_interval=0, **QUIET)
        # Without them a connection that died in silence is waited for without end.
        if parameters.get("socket_timeout") is None:
            parameters["socket_timeout"] = SOCKET_TIMEOUT_S
        parameters["connection_class"] = abortive(patient(parameters["connection_class"]))
        return parameters


class Transport(kombu_redis.Transport):
    """What the `redis` and `rediss` schemes mean once `register` was called."""

    Channel = Channel

    #: Seconds a consumer waits for a bell.
    wait_s: float = WAIT_S
    #: Set on the connection that a Celery worker consumes from.
    holder: Holder | None = None

    implements = kombu_redis.Transport.implements.extend(batch_publish=False)
    supports_batch_publish = False


def register() -> None:
    """Make every kombu connection of this process to Redis use this transport."""
    for alias in ("redis", "rediss"):
        TRANSPORT_ALIASES[alias] = f"{Transport.__module__}:{Transport.__qualname__}"

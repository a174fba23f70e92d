"""What a channel has taken. Only a refusal, and the acknowledgement of no worker, go to Redis."""

from __future__ import annotations

import logging
from typing import Any

import redis
from kombu.transport import virtual

from swarm.delivery.release import Mode, release

log = logging.getLogger(__name__)


class QoS(virtual.QoS):
    """Counts what is taken, over all channels of a worker."""

    restore_at_shutdown = False

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        # A task goes on when its channel is lost, and its place stays taken.
        self._delivered = channel.holder.delivered
        self._dirty = channel.holder.dirty
        self._quick_ack = self._dirty.add
        self._quick_append = self._delivered.__setitem__

    def append(self, message: Any, delivery_tag: str) -> None:
        super().append(message, delivery_tag)
        self.channel.holder.took(
            delivery_tag,
            self.channel.connect_anew,
            again=bool(message.delivery_info.get("redelivered")),
        )

    def ack(self, delivery_tag: str) -> None:
        if not self.channel.serves_worker:
            self.channel.release(delivery_tag, "forget", "acknowledged")
        self._ended(delivery_tag)

    def _ended(self, delivery_tag: str) -> None:
        self.channel.holder.ended(delivery_tag)
        super().ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        died = self.channel.holder.deaths.pop(delivery_tag, None)
        if died is not None and requeue:
            self._release(delivery_tag, "died", died)
        elif requeue:
            self._release(delivery_tag, "return", "rejected")
        else:
            self._release(delivery_tag, "dead", "rejected by its worker")
        self._ended(delivery_tag)

    def _release(self, tag: str, mode: Mode, reason: str) -> None:
        """Let go of a message; for a worker now or later.

        Celery rejects through the channel that brought the message, which may be closed by now,
        and is content with a log line when that fails.
        """
        holder = self.channel.holder
        if not holder.serves_worker:
            self.channel.release(tag, mode, reason)
            return

        def let_go() -> None:
            release(holder.client, str(holder.name), mode, reason, choice="only", needles=[tag])

        try:
            let_go()
        except (redis.RedisError, OSError) as exc:
            log.warning(
                "a task could not be given back yet",
                extra={"fields": {"tag": tag, "reason": str(exc)}},
            )
            holder.pending_ends.add(tag, let_go)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Nothing: what a holder had is released by the transport's own ways."""

    def restore_unacked(self) -> None:
        """What `basic_recover` asks for: everything not acknowledged, back to its queue."""
        self._flush()
        for tag in reversed(list(self._delivered)):
            self.reject(tag, requeue=True)

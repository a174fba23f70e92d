"""The worker's consumer: what it cannot do becomes a dead letter, never nothing."""

from __future__ import annotations

import logging
from typing import Any

from celery.exceptions import WorkerShutdown
from celery.worker import consumer as celery_consumer
from celery.worker import state as celery_state

from swarm.brokers import classify
from swarm.delivery.holder import worker_holder
from swarm.errors import ConfigError

log = logging.getLogger(__name__)

#: Its unit does not start a worker again that ended so.
MISCONFIGURED = ConfigError.exit_status
#: Seconds between attempts to connect. The last is less than a lease, after which the reaper gives
#: back what a worker holds that nobody has heard of; each attempt on a metered broker may count.
_FIRST_PAUSE_S, _PAUSE_STEP_S, _LONGEST_PAUSE_S = 0.5, 1.0, 20.0


class Consumer(celery_consumer.Consumer):
    """Celery's consumer with this process's holder on its connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        holder = worker_holder()
        holder.running = _running_tags
        holder.on_revoked = celery_state.revoked.add

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        connection = super().connection_for_read(heartbeat)
        connection.transport.holder = worker_holder()
        return connection

    def ensure_connected(self, conn: Any) -> Any:
        """Try until the broker lets us in; say how it is when that changes, not at each attempt.

        Raises:
            WorkerShutdown: it does not know us, and never has: people must put that right.
        """

        def failed(exc: Exception, _interval_s: float) -> None:
            verdict = classify(exc)
            worker_holder().on_broker(verdict)
            if verdict.state == "refused" and self.first_connection_attempt:
                raise WorkerShutdown(MISCONFIGURED)

        conn = conn.ensure_connection(
            failed,
            interval_start=_FIRST_PAUSE_S,
            interval_step=_PAUSE_STEP_S,
            interval_max=_LONGEST_PAUSE_S,
            callback=celery_state.maybe_shutdown,
        )
        self.first_connection_attempt = False
        return conn

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._dead_letter(message, "not a Celery task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._dead_letter(message, f"no such task here: {exc}")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._dead_letter(message, f"an invalid task: {exc}")

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._dead_letter(message, f"not to be decoded: {exc}")

    def _dead_letter(self, message: Any, reason: str) -> None:
        log.error(
            "a message is a dead letter now: %s",
            reason,
            extra={"fields": {"tag": message.delivery_tag}},
        )
        message.channel.release(message.delivery_tag, "dead", reason)
        message.ack()


def _running_tags() -> set[str]:
    return {request.message.delivery_tag for request in tuple(celery_state.active_requests)}

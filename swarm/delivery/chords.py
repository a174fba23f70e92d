"""The task that completes a chord; the commit of the chord's last part publishes it."""

from __future__ import annotations

from typing import Any

import redis
from celery import shared_task

from swarm.delivery import outcome as outcomes
from swarm.delivery.results import COMPLETE_CHORD


@shared_task(
    bind=True,
    name=COMPLETE_CHORD,
    ignore_result=True,
    autoretry_for=(redis.exceptions.ConnectionError, redis.exceptions.TimeoutError),
    max_retries=None,
    retry_backoff=1,
)
def complete_chord(self: Any, group_id: str, body: dict[str, Any]) -> None:
    """Join the parts of the group and start the chord's body, in this task's own commit."""
    with outcomes.collected(self.request):
        self.backend.complete_chord(group_id, body, self.request)

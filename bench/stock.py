"""What we compare with: Celery's own Redis transport and result backend.

Its broker comes from Celery's variables `CELERY_BROKER_URL` and `CELERY_RESULT_BACKEND`. Nothing
of swarm is imported: that would put swarm's transport in the place of kombu's.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Celery


def clock() -> float:
    """When the body ran: CLOCK_MONOTONIC is one clock for all processes of a machine."""
    return time.monotonic()


def nap(seconds: float) -> float:
    """Take this long."""
    time.sleep(seconds)
    return time.monotonic()


def make_app(name: str, **configuration: Any) -> Celery:
    """An app with both tasks."""
    app = Celery(name, set_as_current=False)
    app.conf.update(broker_connection_retry_on_startup=True, **configuration)
    app.task(name="analysis.clock")(clock)
    app.task(name="analysis.nap")(nap)
    return app


#: As Celery comes.
defaults = make_app("stock")
#: As careful as stock can be: what our instances promise at the least.
careful = make_app("careful", task_acks_late=True, worker_prefetch_multiplier=1)

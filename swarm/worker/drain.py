"""How an instance stops consuming without being stopped, and goes on when it is told to.

    consuming ──drain──> stopping ──nothing is held any more──> idle
        ^                   │                                    │
        └──── undrain, or nobody renewed the drain ──────────────┘

The sequence number rises with each of these steps, and idle is left for consuming only. So who
reads idle twice with one number knows that the instance held nothing all the time in between.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from celery.worker import state as celery_state

from swarm.delivery.holder import Holder
from swarm.delivery.intake import Intake
from swarm.status import DrainState, DrainStatus

log = logging.getLogger(__name__)

#: Seconds after which a drain ends that nobody renews. A scaler that renews it in each turn, of
#: which the longest takes 20 s, may miss two; one that is gone for good leaves an instance out of
#: work for no longer than this.
LEASE_S = 60.0
_LONGEST_LEASE_S = 3600.0


class Drain:
    """One instance's; every method may be called by any thread."""

    def __init__(
        self,
        intake: Intake,
        holds_tasks: Callable[[], bool],
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`holds_tasks` tells of what was taken and has not ended, running or not."""
        self._intake = intake
        self._holds_tasks = holds_tasks
        self._now = now
        self._lock = threading.Lock()
        self._status = DrainStatus("consuming", sequence=1, since=now())
        self._ends_at: float | None = None
        self._is_shutting_down = False

    def begin(self, *, for_s: float = LEASE_S) -> DrainStatus:
        """Stop consuming for as many seconds from now, whatever an earlier call said."""
        with self._lock:
            status = self._look()
            self._ends_at = self._now() + for_s
            if status.state == "consuming":
                self._intake.close("drain")
                log.info("drain: takes no more tasks", extra={"fields": {"for_s": for_s}})
                self._enter("stopping")
            return self._look()

    def cancel(self) -> DrainStatus:
        """Consume again; does nothing where there is no drain.

        Raises:
            ValueError: the instance is being stopped.
        """
        with self._lock:
            if self._is_shutting_down:
                raise ValueError("this instance is being stopped and will not consume again")
            if self._look().state != "consuming":
                log.info("drain cancelled: takes tasks again")
                self._resume()
            return self._status

    def shutting_down(self) -> None:
        """The process has been told to end; called in a signal's handler, so it takes no lock."""
        self._is_shutting_down = True

    def look(self) -> DrainStatus:
        """How it stands now. A drain that nobody renewed ends here, so it is called often."""
        with self._lock:
            return self._look()

    def _look(self) -> DrainStatus:
        is_over = self._ends_at is not None and self._now() >= self._ends_at
        if is_over and not self._is_shutting_down:
            log.warning("drain ended, as nobody renewed it: takes tasks again")
            self._resume()
        if self._status.state != "consuming":
            # In this order: once the intake is still, nothing is added to what is held.
            is_idle = self._intake.is_still and not self._holds_tasks()
            self._enter("idle" if is_idle else "stopping")
        return self._status

    def _resume(self) -> None:
        self._ends_at = None
        self._enter("consuming")
        self._intake.open("drain")

    def _enter(self, state: DrainState) -> None:
        before = self._status
        if state == before.state:
            return
        # A drain begins once, however many steps it has.
        begins = "consuming" in (state, before.state)
        since = self._now() if begins else before.since
        self._status = DrainStatus(state, before.sequence + 1, since)
        if state == "idle":
            seconds = self._now() - since
            log.info("drained: holds no task", extra={"fields": {"seconds": round(seconds, 3)}})


def handlers(drain: Drain) -> dict[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]:
    """The verbs of the control socket that are about it."""

    def told(status: DrainStatus) -> Mapping[str, Any]:
        return {"pid": os.getpid(), **asdict(status)}

    def begin(request: Mapping[str, Any]) -> Mapping[str, Any]:
        for_s = request.get("for_s", LEASE_S)
        if type(for_s) not in (int, float) or not 0 < for_s <= _LONGEST_LEASE_S:
            raise ValueError(
                f"for_s: got {for_s!r:.100}, expected seconds, at most {_LONGEST_LEASE_S:g}"
            )
        return told(drain.begin(for_s=for_s))

    return {
        "drain": begin,
        "undrain": lambda _: told(drain.cancel()),
        "state": lambda _: told(drain.look()),
    }


def holds_tasks(holder: Holder) -> bool:
    """Whether Celery knows of a task here, or the holder of a message that has not ended."""
    return bool(
        celery_state.active_requests or celery_state.reserved_requests or holder.holds_messages
    )

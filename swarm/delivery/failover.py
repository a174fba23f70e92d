"""Which broker a producer's next task goes to, by how its operations on each have ended.

State is a process's own: every producer sees its own network. A broker that is avoided is tried by
a thread with nothing to lose, never by somebody's task.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import redis

from swarm.brokers import Broker, BrokerName, Brokers, Verdict, classify, connect
from swarm.brokers.health import HealthRules
from swarm.brokers.lock import ProcessLock
from swarm.brokers.watch import Change, Watch
from swarm.delivery import metrics
from swarm.delivery.publish import try_out

log = logging.getLogger(__name__)

#: Seconds between two looks of the thread that tries a broker at whether it is its turn.
_TRIAL_TICK_S = 0.5
#: Seconds between two questions for results to a broker that did not answer the last one.
_READ_AGAIN_S = 5.0
#: Tasks and groups that a process remembers the broker of.
_REMEMBERED = 10_000

#: Something that is done with a result backend.
Operation = Callable[[Any], Any]


@dataclass(slots=True)
class Placement:
    """Where one submission goes: a task's, or that of a whole workflow."""

    broker: BrokerName
    is_pinned: bool = False
    """Something of it is accepted: what follows goes there too, or nowhere."""
    has_moved: bool = False
    """It went elsewhere than its ids say."""
    prelude: list[Operation] = field(default_factory=list)
    """What was done for it in the result backend before any task of it was accepted."""


_placement: ContextVar[Placement | None] = ContextVar("placement", default=None)


def current_placement() -> Placement | None:
    """That of the submission which is under way in this thread."""
    return _placement.get()


class Failover:
    """Chooses between two brokers; shared by the threads of a process."""

    def __init__(
        self,
        brokers: Brokers,
        *,
        rules: HealthRules | None = None,
        clock: Callable[[], float] = time.monotonic,
        tick_s: float = _TRIAL_TICK_S,
    ) -> None:
        self._brokers: Mapping[BrokerName, Broker] = {each.name: each for each in brokers}
        self._watches = {
            name: Watch(name, _tell_change, rules=rules, clock=clock) for name in self._brokers
        }
        self._clock, self._tick_s = clock, tick_s
        self._read_at: dict[BrokerName, float] = {}
        self._lock = ProcessLock()
        self._trying: dict[BrokerName, threading.Thread] = {}
        self._places: OrderedDict[str, BrokerName] = OrderedDict()
        for name in self._brokers:
            metrics.show_state(name, "ok")

    def broker(self, name: BrokerName) -> Broker:
        return self._brokers[name]

    @contextmanager
    def placing(self) -> Iterator[Placement]:
        """One submission; what is submitted inside of it is part of it."""
        placement = _placement.get()
        if placement is not None:
            yield placement
            return
        placement = Placement(self._choose())
        token = _placement.set(placement)
        try:
            yield placement
        finally:
            _placement.reset(token)

    def is_usable(self, name: BrokerName) -> bool:
        """Whether to ask it; has it tried when it is its turn."""
        watch = self._watches[name]
        if not watch.health.fails_over:
            return True
        with self._lock:
            trials = self._trying.get(name)
            # Its thread asks for itself. A forked process has the object of one that stayed behind.
            if (trials is None or not trials.is_alive()) and watch.permit() == "trial":
                self._start_trials(name)
        return False

    def may_read(self, name: BrokerName) -> bool:
        """Whether to ask it for what it alone can have: not all the time while it is away."""
        health = self._watches[name].health
        if not health.fails_over or health.state == "slow" or health.good:
            return True
        with self._lock:
            now = self._clock()
            if now - self._read_at.get(name, float("-inf")) < _READ_AGAIN_S:
                return False
            self._read_at[name] = now
            return True

    def tell(self, name: BrokerName, verdict: Verdict, seconds: float) -> None:
        """An operation on it ended so."""
        self._watches[name].tell(verdict, seconds)

    def reason(self, name: BrokerName) -> str:
        """Why it is avoided."""
        health = self._watches[name].health
        return f"the {name} is {health.state}: {health.reason}"

    def remember(self, task_id: str, name: BrokerName) -> None:
        """Where a task or a group is."""
        with self._lock:
            self._places[task_id] = name
            self._places.move_to_end(task_id)
            if len(self._places) > _REMEMBERED:
                self._places.popitem(last=False)

    def remembered(self, task_id: str) -> BrokerName | None:
        return self._places.get(task_id)

    def _choose(self) -> BrokerName:
        """The first that is well; if none is, the fallback, which is near."""
        if "fallback" not in self._brokers or self.is_usable("primary"):
            return "primary"
        return "fallback"

    def _start_trials(self, name: BrokerName) -> None:
        thread = threading.Thread(
            target=self._try, args=(name,), name=f"trials of the {name}", daemon=True
        )
        self._trying[name] = thread
        thread.start()

    def _try(self, name: BrokerName) -> None:
        """Try it as long as that goes well, until it is well again."""
        watch = self._watches[name]
        while True:
            begun = time.monotonic()
            verdict = _try_once(self._brokers[name])
            watch.tell(verdict, time.monotonic() - begun)
            if verdict.state != "ok" or not watch.health.fails_over:
                return
            while (permit := watch.permit()) == "avoid":
                time.sleep(self._tick_s)
            if permit == "use":
                return


def _try_once(broker: Broker) -> Verdict:
    """What a task would meet: a full broker, or one at its limit, answers a PING."""
    try:
        with connect(broker) as client:
            try_out(client)
    except (redis.RedisError, OSError) as exc:
        return classify(exc)
    return classify(None)


def _tell_change(change: Change) -> None:
    metrics.show_state(change.broker, change.after)
    metrics.CHANGES.labels(change.broker, change.after).inc()
    if change.after == "refused":
        # Whoever submits is told, with an error.
        return
    fields = {"broker": change.broker, "before": change.before, "lasted_s": change.lasted_s}
    reason = f": {change.reason}" if change.reason else ""
    level = logging.INFO if change.after == "ok" else logging.WARNING
    log.log(
        level,
        "the %s broker is %s%s",
        change.broker,
        change.after,
        reason,
        extra={"fields": fields},
    )

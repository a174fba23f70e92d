"""How an instance sees its broker: a word for its status file, and a line for each change."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from swarm.brokers import Broker, Verdict, refusal

log = logging.getLogger(__name__)


class BrokerReport:
    """Of one broker, from the connection that its consumer has or tries to get."""

    def __init__(self, broker: Broker, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._broker = broker
        self._clock = clock
        self._since = clock()
        self._told = ""
        self.state = "away"
        """`ok`, `away` before the first connection and right after a loss, else how the attempts
        to connect end: `slow`, `down`, `limited`, `refused`."""

    def connected(self, connected: bool) -> None:  # noqa: FBT001 - a callback's one value
        """The consumer has got a connection, or has lost it."""
        self.state = "ok" if connected else "away"
        if not connected:
            self._since = self._clock()
        elif self._told:
            log.info(
                "the %s broker is ok again",
                self._broker.name,
                extra={"fields": {"away_s": round(self._clock() - self._since, 1)}},
            )
            self._told = ""

    def failed(self, verdict: Verdict) -> None:
        """An attempt to connect has ended so."""
        self.state = "down" if verdict.state == "ok" else verdict.state
        if self._told == self.state:
            return
        self._told = self.state
        if verdict.state == "refused":
            problem = refusal(self._broker, verdict)
            log.error("the %s broker refuses us. %s", self._broker.name, problem)
        else:
            log.warning(
                "the %s broker is %s, what runs goes on: %s",
                self._broker.name,
                self.state,
                verdict.reason,
            )

"""What the scaler knows from the broker itself: surveys at the reaper's rhythm, and the bells.

Nothing here fails or delays a turn: a broker that is away makes its word unknown.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

import redis
from redis.exceptions import RedisError

from swarm.brokers import Broker, classify, connect
from swarm.delivery import keys
from swarm.delivery.reaper import Findings, GivenBack, Reaper
from swarm.delivery.survey import Attention, Rhythm, Survey
from swarm.scaler.adapters.bells import Bells
from swarm.scaler.model import BrokerCondition, Unknown

log = logging.getLogger(__name__)

#: Seconds a turn waits for a survey; its own limits end it not much later.
_TIMEOUT_S = 8.0


class SurveyMetrics(Protocol):
    """Counts surveys."""

    def surveyed(self, broker: str, given: Sequence[GivenBack]) -> None: ...
    def survey_failed(self, broker: str) -> None: ...


class RedisView:
    """A `BrokerView`. An async context manager: it looks by itself from time to time."""

    def __init__(
        self,
        broker: Broker,
        queues: Sequence[str],
        rhythm: Rhythm,
        metrics: SurveyMetrics,
        *,
        alone: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Unless the broker is alone, it is named in the journal."""
        self._broker = broker
        self.stretch = 1.0
        self._called = "the broker" if alone else f"the {broker.name} broker"
        self._named: dict[str, str] = {} if alone else {"broker": broker.name}
        self._reaper = Reaper(lambda: connect(broker), queues, clock=clock)
        self._rhythm = rhythm
        self._metrics = metrics
        self._clock = clock
        self._bells = Bells(broker, self.look_soon, alone=alone)
        self._attention = Attention()
        self._changed = asyncio.Event()
        self._survey: Survey | Unknown = Unknown(f"{self._called} has not been looked at yet")
        # When the last look that has ended began, and when a bell was last heard.
        self._began_at = self._heard_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._troubled = False
        # When the first of the looks ended that failed without a break, and why the last one did.
        self._down_since: float | None = None
        self._reason = ""
        self._refused: set[str] = set()

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep_looking(), name="surveys")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await self._bells.close()
        if self._looking is not None:
            # A look is bounded by the broker's time limits, and may be giving something back.
            await asyncio.wait([self._looking], timeout=_TIMEOUT_S)
        self._reaper.close()

    @property
    def survey(self) -> Survey | Unknown:
        """The last one."""
        return self._survey

    async def close_to_producers(self, reason: str, until: float) -> None:
        """Send producers elsewhere until then, in epoch seconds.

        Raises:
            RedisError, OSError: the broker does not answer in time, or refuses.
        """
        await self._ask(lambda client: client.set(keys.CLOSED, reason, exat=int(until)))

    async def open_to_producers(self) -> None:
        """Have it take tasks again.

        Raises:
            RedisError, OSError: the broker does not answer in time, or refuses.
        """
        await self._ask(lambda client: client.delete(keys.CLOSED))

    async def _ask(self, question: Callable[[redis.Redis], object]) -> None:
        def ask() -> None:
            with connect(self._broker) as client:
                question(client)

        try:
            # No limit of the connection's own is one for whoever resolves its name.
            async with asyncio.timeout(_TIMEOUT_S):
                await asyncio.to_thread(ask)
        except TimeoutError as exc:
            raise TimeoutError(f"no answer in {_TIMEOUT_S:g} s") from exc

    def condition(self) -> BrokerCondition:
        if self._down_since is None:
            return BrokerCondition(reached=isinstance(self._survey, Survey))
        return BrokerCondition(self._clock() - self._down_since, self._reason)

    def attend(self, attention: Attention) -> None:
        if attention != self._attention:
            self._attention = attention
            self._changed.set()
        self._bells.listen(attention.deserted)

    def quiet(self) -> frozenset[str]:
        return self._bells.silent

    def piled(self) -> Mapping[str, float]:
        if isinstance(self._survey, Unknown):
            return {}
        at = self._survey.asked_at
        return {queue: at for queue, sight in self._survey.queues.items() if sight.length}

    async def waiting(
        self, queues: Sequence[str], *, max_age_s: float
    ) -> Mapping[str, int | Unknown]:
        oldest = max(self._clock() - max_age_s, self._heard_at)
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                # The look under way may have begun before that.
                while self._began_at < oldest:
                    await self._look()
        except TimeoutError:
            return dict.fromkeys(queues, Unknown(f"no answer in {_TIMEOUT_S:g} s"))
        survey = self._survey
        if isinstance(survey, Unknown):
            return dict.fromkeys(queues, survey)
        return {
            queue: survey.queues[queue].length
            if queue in survey.queues
            else Unknown(f"no answer about queue {queue}")
            for queue in queues
        }

    def look_soon(self) -> None:
        """What is known of the broker is out of date, as when a bell rang."""
        self._heard_at = self._clock()
        self._changed.set()

    async def _keep_looking(self) -> None:
        while True:
            self._changed.clear()
            left_s = self._began_at + self._pause_s() - self._clock()
            if left_s <= 0 or self._began_at < self._heard_at:
                await self._look()
                continue
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _pause_s(self) -> float:
        pause_s = self._reaper.pause_s(self._attention, self._rhythm.stretched(self.stretch))
        down_for_s = self.condition().down_for_s
        if down_for_s is not None and down_for_s >= self._rhythm.given_up_after_s:
            return max(pause_s, self._rhythm.given_up_s)
        return pause_s

    async def _look(self) -> None:
        """Look, or wait for the look that is under way; whoever waits may be cancelled."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_once(), name="survey")
        await asyncio.shield(self._looking)

    async def _look_once(self) -> None:
        began_at = self._clock()
        try:
            findings = await asyncio.to_thread(self._reaper.look)
        except (RedisError, OSError) as exc:
            # One that refuses us is there: something is wrong with our user, and neither producers
            # nor workers need to have lost it.
            is_away = classify(exc).state not in {"ok", "refused"}
            self._fail(str(exc) or type(exc).__name__, is_away=is_away)
        except Exception as exc:
            # The turns go on whatever a survey meets.
            if not self._troubled:
                log.exception("a survey of %s failed", self._called)
            self._fail(repr(exc), is_away=False)
        else:
            self._survey = findings.survey
            self._tell(findings)
        self._began_at = began_at
        self._changed.set()

    def _fail(self, reason: str, *, is_away: bool) -> None:
        if not self._troubled:
            log.warning(
                "%s does not answer the scaler; what vanished workers hold is given back "
                "a lease after it is there again: %s",
                self._called,
                reason,
            )
        self._troubled = True
        self._survey = Unknown(f"{self._called} does not answer: {reason}")
        if not is_away:
            self._down_since = None
        elif self._down_since is None:
            self._down_since = self._clock()
        self._reason = reason
        self._metrics.survey_failed(self._broker.name)

    def _tell(self, findings: Findings) -> None:
        if self._troubled:
            log.info("%s answers again", self._called)
        self._troubled = False
        self._down_since = None
        self._metrics.surveyed(self._broker.name, findings.given)
        for each in findings.given:
            log.warning(
                "what a vanished worker held is given back",
                extra={
                    "fields": {
                        "holder": each.holder,
                        "returned": each.returned,
                        "dead_letters": each.dead,
                        "why": each.why,
                        **self._named,
                    }
                },
            )
        for holder, reason in findings.refused.items():
            if holder not in self._refused:
                log.warning(
                    "what %s held is not given back: %s",
                    holder,
                    reason,
                    extra={"fields": self._named},
                )
        self._refused = set(findings.refused)
        for queue, sight in findings.survey.queues.items():
            if not sight.rung:
                self._bells.is_down(queue)

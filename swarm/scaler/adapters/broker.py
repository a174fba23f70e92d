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

from redis.exceptions import RedisError

from swarm.brokers import Broker, connect
from swarm.delivery.reaper import Findings, GivenBack, Reaper
from swarm.delivery.survey import Attention, Rhythm, Survey
from swarm.scaler.adapters.bells import Bells
from swarm.scaler.model import Unknown

log = logging.getLogger(__name__)

#: Seconds a turn waits for a survey; its own limits end it not much later.
_TIMEOUT_S = 8.0


class SurveyMetrics(Protocol):
    """Counts surveys."""

    def surveyed(self, given: Sequence[GivenBack]) -> None: ...
    def survey_failed(self) -> None: ...


class RedisView:
    """A `BrokerView`. An async context manager: it looks by itself from time to time."""

    def __init__(
        self,
        broker: Broker,
        queues: Sequence[str],
        rhythm: Rhythm,
        metrics: SurveyMetrics,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reaper = Reaper(lambda: connect(broker), queues, clock=clock)
        self._rhythm = rhythm
        self._metrics = metrics
        self._clock = clock
        self._bells = Bells(broker, self._heard)
        self._attention = Attention()
        self._changed = asyncio.Event()
        self._survey: Survey | Unknown = Unknown("the broker has not been looked at yet")
        # When the last look that has ended began, and when a bell was last heard.
        self._began_at = self._heard_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._troubled = False
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

    def _heard(self) -> None:
        """A bell rang: what is known of the queues is out of date."""
        self._heard_at = self._clock()
        self._changed.set()

    async def _keep_looking(self) -> None:
        while True:
            self._changed.clear()
            pause_s = self._reaper.pause_s(self._attention, self._rhythm)
            left_s = self._began_at + pause_s - self._clock()
            if left_s <= 0 or self._began_at < self._heard_at:
                await self._look()
                continue
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

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
            self._fail(str(exc) or type(exc).__name__)
        except Exception as exc:
            # The turns go on whatever a survey meets.
            if not self._troubled:
                log.exception("a survey of the broker failed")
            self._fail(repr(exc))
        else:
            self._survey = findings.survey
            self._tell(findings)
        self._began_at = began_at
        self._changed.set()

    def _fail(self, reason: str) -> None:
        if not self._troubled:
            log.warning(
                "the broker does not answer the scaler; what vanished workers hold is given back "
                "a lease after it is there again: %s",
                reason,
            )
        self._troubled = True
        self._survey = Unknown(f"the broker does not answer: {reason}")
        self._metrics.survey_failed()

    def _tell(self, findings: Findings) -> None:
        if self._troubled:
            log.info("the broker answers again")
        self._troubled = False
        self._metrics.surveyed(findings.given)
        for each in findings.given:
            log.warning(
                "what a vanished worker held is given back",
                extra={
                    "fields": {
                        "holder": each.holder,
                        "returned": each.returned,
                        "dead_letters": each.dead,
                        "why": each.why,
                    }
                },
            )
        for holder, reason in findings.refused.items():
            if holder not in self._refused:
                log.warning("what %s held is not given back: %s", holder, reason)
        self._refused = set(findings.refused)
        for queue, sight in findings.survey.queues.items():
            if not sight.rung:
                self._bells.is_down(queue)

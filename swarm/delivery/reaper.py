"""The reaper: gives back what the holders of vanished hosts held.

It only ever looks and releases; what is lost, `swarm.delivery.survey` decides. The scaler runs it
(`swarm.scaler.adapters.broker`), in a thread, as it blocks for as long as the broker's time limits.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from swarm.delivery import scripts
from swarm.delivery.release import release
from swarm.delivery.survey import Attention, Patience, Rhythm, Sightings, Survey, parse_survey
from swarm.delivery.survey import pause_s as _pause_s

#: What is no instance, by `swarm.delivery.holder`.
_NOT_AN_INSTANCE = re.compile(r":(channel|process):\d+:")
#: Seconds for which it holds nothing until its name is removed. One that lives comes back with
#: the next message it takes.
_FORGET_AFTER_S = 3600.0


@dataclass(frozen=True, slots=True)
class GivenBack:
    """What one holder lost."""

    holder: str
    returned: int
    """Messages that are in their queues again."""
    dead: int
    """Messages that are dead letters now, because too many workers died under them."""
    why: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What came of one look."""

    survey: Survey
    given: tuple[GivenBack, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    """Holders of which nothing could be given back, and why."""


class Reaper:
    """Looks at one broker. Not for several threads at once."""

    def __init__(
        self,
        connect: Callable[[], redis.Redis],
        queues: Sequence[str],
        *,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`connect` gives a client that neither retries nor waits for ever."""
        self._connect = connect
        self._queues = tuple(queues)
        self._patience = patience or Patience()
        self._clock = clock
        self._base: redis.Redis | None = None
        self._client: redis.Redis | None = None
        self._sightings = Sightings()
        self._survey: Survey | None = None
        # Holders that are no instances and hold nothing, and since when.
        self._forgettable: dict[str, float] = {}

    def look(self) -> Findings:
        """Survey the broker and give back what is lost.

        Raises:
            redis.RedisError, OSError, ValueError: the broker is away, refuses, or answers
                something else. All sightings start anew.
        """
        try:
            survey = self._ask()
            self._sightings = self._sightings.after(survey, self._patience)
            given, refused = [], {}
            for holder, tags in {**self._forgotten(survey), **self._lost()}.items():
                try:
                    given.append(self._release(holder, tags))
                except redis.ResponseError as exc:
                    # It must not keep others from getting theirs.
                    refused[holder] = str(exc)
        except BaseException:
            self.close()
            raise
        self._survey = survey
        return Findings(
            survey, tuple(each for each in given if each.returned or each.dead), refused
        )

    def pause_s(self, attention: Attention, rhythm: Rhythm) -> float:
        """Seconds from the last look to the next."""
        if self._survey is None:
            return rhythm.close_s
        return _pause_s(self._survey, self._sightings, attention, rhythm, self._patience)

    def close(self) -> None:
        """Let go of the connection, and of all that was seen through it."""
        self._sightings, self._survey = Sightings(), None
        for client in (self._client, self._base):
            if client is not None:
                client.close()
        self._client = self._base = None

    def _lost(self) -> dict[str, tuple[str, ...]]:
        return self._sightings.lost(self._patience)

    def _forgotten(self, survey: Survey) -> dict[str, tuple[str, ...]]:
        """Connections that consumed once, such as Flower's, and left nothing but their names.

        An instance's name stays: its next start finds by it what it left.
        """
        empty = {
            held.holder
            for held in survey.holders
            if not held.tags and held.lease_left_s is None and _NOT_AN_INSTANCE.search(held.holder)
        }
        self._forgettable = {
            holder: self._forgettable.get(holder, survey.asked_at) for holder in empty
        }
        return {
            holder: ()
            for holder, since in self._forgettable.items()
            if survey.asked_at - since >= _FORGET_AFTER_S
        }

    def _ask(self) -> Survey:
        if self._client is not None:
            try:
                return self._ask_once(self._client)
            except redis.ConnectionError:
                # Closed since the last look: by a restart of the broker, or because it was idle.
                self.close()
        # One connection that is never made anew behind our back: its end is a break.
        self._base = self._connect()
        self._client = redis.Redis(
            connection_pool=self._base.connection_pool, single_connection_client=True
        )
        return self._ask_once(self._client)

    def _ask_once(self, client: redis.Redis) -> Survey:
        asked_at = self._clock()
        reply = scripts.SURVEY.run(client, *self._queues)
        return parse_survey(reply, self._queues, asked_at=asked_at, answered_at=self._clock())

    def _release(self, holder: str, tags: Sequence[str]) -> GivenBack:
        if self._client is None:
            raise redis.ConnectionError("not connected")
        # Not every message is UTF-8.
        needles: list[Any] = [tag.encode(errors="surrogateescape") for tag in tags]
        reason = f"its worker vanished: no lease for {self._patience.lease_s:g} s"
        returned, dead = release(
            self._client,
            holder,
            "died",
            reason,
            choice="unleased",
            needles=needles,
        )
        return GivenBack(holder, returned, dead, reason)

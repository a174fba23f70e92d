"""Brings the readings of a metered broker together, after each turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from swarm.brokers import Broker
from swarm.brokers.counting import count_requests, place_of, requests
from swarm.delivery.survey import Survey
from swarm.scaler.adapters.broker import RedisView
from swarm.scaler.adapters.flower import FlowerQueues
from swarm.scaler.metering import Meter
from swarm.scaler.model import HostReport, Outcome, Unknown
from swarm.scaler.readings import Reading, readings_of
from swarm.settings import BudgetSettings

#: Seconds between two looks at Flower's metrics.
_FLOWER_S = 30.0
#: Tasks that end until the broker is asked what producers have told it: one request for so many,
#: and their count is never behind by more than these tasks' share.
_LOOK_AFTER_TASKS = 20


class BrokerAccounts:
    """Of one metered broker."""

    def __init__(
        self,
        broker: Broker,
        settings: BudgetSettings,
        view: RedisView,
        flower: FlowerQueues,
        *,
        pools: frozenset[str],
        directory: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`pools` are those that serve it; the accounts are kept in `directory`."""
        count_requests()
        self._place = place_of(broker)
        self._view, self._flower, self._pools, self._clock = view, flower, pools, clock
        self._asked_flower_at = float("-inf")
        self._surveyed_at = float("-inf")
        self._ended_then = 0
        self.meter = Meter(
            broker.name,
            settings.budget(),
            used_so_far=settings.used_so_far,
            path=directory / f"requests-{broker.name}.json",
            gate=view,
        )

    async def account(self, outcome: Outcome) -> None:
        """Book what was asked up to the end of this turn. Never raises."""
        instances = [
            instance
            for report in outcome.observation.hosts.values()
            if isinstance(report, HostReport)
            for instance in report.instances
            if instance.pool in self._pools
        ]
        survey = self._view.survey
        readings = readings_of(instances)
        readings.append(Reading("scaler", requests.total(self._place), os.getpid()))
        readings += await self._flowers()
        tasks = None
        if isinstance(survey, Survey):
            # It has grown since long before these accounts, if they are new.
            told = survey.producers_requests
            readings.append(Reading("producers", told, is_new_at_zero=False))
            tasks = survey.tasks
        await self.meter.account(readings, instances, tasks)
        self._view.stretch = self.meter.outlook.stretch
        self._look_in_time(survey)

    def _look_in_time(self, survey: Survey | Unknown) -> None:
        if isinstance(survey, Survey) and survey.asked_at != self._surveyed_at:
            self._surveyed_at = survey.asked_at
            self._ended_then = self.meter.tasks_ended
        if self.meter.tasks_ended - self._ended_then >= _LOOK_AFTER_TASKS:
            self._ended_then = self.meter.tasks_ended
            self._view.look_soon()

    async def _flowers(self) -> list[Reading]:
        if self._clock() - self._asked_flower_at < _FLOWER_S:
            return []
        self._asked_flower_at = self._clock()
        said = await self._flower.requests()
        return [] if said is None else [Reading("flower", said[1], said[0])]

"""When the readings of a metered broker are taken, and of whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from swarm.brokers import Broker
from swarm.delivery.survey import Survey
from swarm.scaler.adapters.accounts import BrokerAccounts
from swarm.scaler.model import Instance, Outcome, Unknown
from swarm.settings import BudgetSettings
from tests.builders import make_instance, make_observation


@dataclass
class FakeView:
    """A view whose surveys are put in by hand."""

    survey: Survey | Unknown = field(default_factory=lambda: Unknown("not looked at yet"))
    stretch: float = 1.0
    looks: int = 0

    def look_soon(self) -> None:
        self.looks += 1

    async def close_to_producers(self, reason: str, until: float) -> None: ...

    async def open_to_producers(self) -> None: ...


@dataclass
class FakeFlower:
    total: int | None = 40
    asked: int = 0

    async def requests(self) -> tuple[int, int] | None:
        self.asked += 1
        return None if self.total is None else (7, self.total)


@dataclass
class Stage:
    directory: Path
    view: FakeView = field(default_factory=FakeView)
    flower: FakeFlower = field(default_factory=FakeFlower)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.accounts = BrokerAccounts(
            Broker("primary", "redis://metered.example"),
            BudgetSettings(limit="100000/month"),
            cast("Any", self.view),
            cast("Any", self.flower),
            pools=frozenset({"browser"}),
            directory=self.directory,
            clock=lambda: self.now,
        )

    async def turn(self, *instances: Instance) -> None:
        self.now += 2
        await self.accounts.account(Outcome(make_observation(0, instances), {}))

    def surveyed(self, producers_requests: int) -> None:
        self.view.survey = Survey(
            self.now, self.now, 1.7e9, {}, (), producers_requests=producers_requests
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_everybody_is_booked_who_asks_this_broker(stage: Stage) -> None:
    mine = make_instance(1, requests=5)
    await stage.turn(mine, make_instance(2, pool="browser-fallback", requests=1000))
    # What producers have told before these accounts began is no part of them.
    stage.surveyed(9_000)
    await stage.turn(mine)
    stage.surveyed(9_012)
    await stage.turn(mine)
    used = {name: used for name, used in stage.accounts.meter.used.items() if name != "scaler"}
    assert used == {"workers": 5, "flower": 40, "producers": 12}


async def test_flower_is_asked_every_30_s_whether_it_answers_or_not(stage: Stage) -> None:
    for total, asked in ((40, 1), (None, 2)):
        stage.flower.total = total
        for _ in range(15):
            await stage.turn()
        assert stage.flower.asked == asked


async def test_what_producers_told_is_looked_at_after_so_many_tasks(stage: Stage) -> None:
    stage.surveyed(0)
    for ended in range(19 + 1):
        await stage.turn(make_instance(1, tasks_ended=ended))
    assert stage.view.looks == 0
    await stage.turn(make_instance(1, tasks_ended=20))
    assert stage.view.looks == 1
    await stage.turn(make_instance(1, tasks_ended=39))
    assert stage.view.looks == 1
    # A survey for any other reason tells it as well.
    stage.surveyed(0)
    await stage.turn(make_instance(1, tasks_ended=45))
    await stage.turn(make_instance(1, tasks_ended=60))
    assert stage.view.looks == 1
    await stage.turn(make_instance(1, tasks_ended=65))
    assert stage.view.looks == 2


async def test_a_budget_that_is_nearly_used_makes_questions_rarer(stage: Stage) -> None:
    await stage.turn(make_instance(1, requests=10))
    assert stage.view.stretch == 1
    await stage.turn(make_instance(1, requests=90_000))
    assert stage.view.stretch == 4

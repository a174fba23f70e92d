"""The accounts of a metered broker, and when its rest is kept for what it has."""

from __future__ import annotations

import errno
import json
import logging
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from swarm.brokers.budget import Budget
from swarm.scaler.metering import Meter
from swarm.scaler.model import Instance
from swarm.scaler.readings import Accounts, Reading, readings_of
from tests.builders import make_instance

START = datetime(2026, 11, 26, 12, tzinfo=UTC)
BUDGET = Budget(100_000, "month")


@dataclass
class FakeGate:
    """Notes what it was asked; fails while it is away."""

    asked: list[tuple[str, ...]] = field(default_factory=list)
    away: bool = False

    async def close_to_producers(self, reason: str, until: float) -> None:
        self._ask("close", reason, datetime.fromtimestamp(until, UTC).isoformat())

    async def open_to_producers(self) -> None:
        self._ask("open")

    def _ask(self, *words: str) -> None:
        self.asked.append(words)
        if self.away:
            raise RedisConnectionError("away")

    @property
    def verbs(self) -> list[str]:
        return [words[0] for words in self.asked]


@dataclass
class Stage:
    """A meter whose clock is turned by hand."""

    path: Path
    gate: FakeGate = field(default_factory=FakeGate)
    now: datetime = START
    used_so_far: int = 0
    budget: Budget = BUDGET

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.meter = Meter(
            "primary",
            self.budget,
            used_so_far=self.used_so_far,
            path=self.path,
            gate=self.gate,
            clock=lambda: self.now,
        )

    async def account(
        self,
        workers: int,
        *,
        after: timedelta = timedelta(seconds=2),
        tasks: int | None = 0,
        instances: tuple[Instance, ...] = (),
        pid: int = 7,
    ) -> None:
        self.now += after
        readings = [Reading("workers h1 browser 1", workers, pid)]
        await self.meter.account(readings, instances, tasks)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "requests.json")


def after(accounts: Accounts, *readings: Reading, now: datetime = START) -> Accounts:
    return accounts.after(readings, BUDGET, now)


def test_what_a_process_says_counts_once_and_from_its_start() -> None:
    accounts = Accounts.begin(BUDGET, START)
    for total in (10, 10, 25):
        accounts = after(accounts, Reading("workers a", total, 1))
    assert accounts.ledger.used == {"workers": 25}
    # Another process of the same name began at 0.
    accounts = after(accounts, Reading("workers a", 30, 2), Reading("scaler", 4, 9))
    assert accounts.ledger.used == {"workers": 55, "scaler": 4}


def test_a_count_that_is_older_than_the_accounts_is_where_they_begin() -> None:
    accounts = Accounts.begin(BUDGET, START)
    accounts = after(accounts, Reading("producers", 9_000, is_new_at_zero=False))
    accounts = after(accounts, Reading("producers", 9_005, is_new_at_zero=False))
    assert accounts.ledger.used == {"producers": 5}
    # A broker that lost its data counts from 0.
    accounts = after(accounts, Reading("producers", 3, is_new_at_zero=False))
    assert accounts.ledger.used == {"producers": 8}


def test_a_count_that_went_back_in_time_with_its_broker_is_not_counted_twice() -> None:
    """A replica that took over lacks the last of it; so does a backup that was restored."""
    accounts = Accounts.begin(BUDGET, START)
    for total in (5_000_000, 5_000_100, 5_000_040, 5_000_070, 4_200_000, 4_200_005):
        accounts = after(accounts, Reading("producers", total, is_new_at_zero=False))
    assert accounts.ledger.used == {"producers": 100 + 30 + 5}


def test_instances_without_a_count_say_nothing() -> None:
    told = readings_of([make_instance(1, requests=5), make_instance(2)])
    assert told == [Reading("workers h1 browser 1", 5, 1001)]


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(0, 40), st.booleans()),
        max_size=40,
    )
)
def test_nothing_is_counted_twice_or_lost_over_restarts(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    """Instances ask, their processes end and begin, the scaler restarts from its file."""
    accounts, true_total = Accounts.begin(BUDGET, START), 0
    totals: dict[int, tuple[int, int]] = {}
    for instance, process, asked, restarts in steps:
        known = totals.get(instance)
        before = known[1] if known is not None and known[0] == process else 0
        totals[instance] = (process, before + asked)
        true_total += asked
        accounts = after(accounts, Reading(f"workers {instance}", before + asked, process))
        if restarts:
            accounts = Accounts.from_json(json.loads(json.dumps(accounts.to_json())))
    assert accounts.ledger.total == true_total


async def test_the_accounts_survive_a_restart(stage: Stage) -> None:
    await stage.account(100)
    await stage.account(150, after=timedelta(minutes=2))
    stage.restart()
    assert stage.meter.used == {"workers": 150}
    # What was asked while nobody counted is counted now.
    await stage.account(400)
    assert stage.meter.used == {"workers": 400}
    assert stage.meter.outlook.used == 400


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"version": 9}', '{"version": 1}'])
def test_accounts_that_cannot_be_read_are_begun_anew_and_that_is_said(
    stage: Stage, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    stage.path.write_text(content, encoding="utf-8")
    stage.restart()
    assert stage.meter.outlook.used == 0
    assert "requests are counted anew" in caplog.text


async def test_a_disk_that_is_full_is_said_once(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.path.with_suffix(".tmp").mkdir()
    for total in (1, 2, 3):
        await stage.account(total, after=timedelta(minutes=2))
    assert caplog.text.count("not written") == 1
    assert stage.meter.outlook.used == 3


async def test_the_last_accounts_are_kept_until_the_next_are_on_disk(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.account(100)
    stage.meter.save()

    def fail(_file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    await stage.account(150)
    stage.meter.save()
    stage.restart()
    assert stage.meter.used == {"workers": 100}


async def test_what_the_service_says_is_taken_over_and_ends_with_the_period(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path / "requests.json", used_so_far=30_000)
    await stage.account(10)
    assert stage.meter.outlook.used == 30_000
    await stage.account(30, after=timedelta(minutes=2))
    stage.restart()
    await stage.account(40)
    assert stage.meter.outlook.used == 30_030
    await stage.account(50, after=timedelta(days=6))
    assert stage.meter.outlook.used == 10


async def test_each_warning_is_one_line(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for total in (60_000, 71_000, 75_000, 91_000, 95_000):
        await stage.account(total, tasks=0)
    told = [each for each in caplog.messages if "are used" in each]
    rest = "2026-12-01 00:00 UTC begins the next count"
    assert told == [
        f"the budget of the primary broker: 71,000 of 100,000 requests are used (71%), {rest}",
        f"the budget of the primary broker: 91,000 of 100,000 requests are used (91%), {rest}",
    ]


async def test_when_it_will_be_used_up_is_said_in_time(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    for minute in range(60):
        await stage.account(40 * minute, after=timedelta(minutes=1))
    told = [each for each in caplog.messages if "are used up on" in each]
    assert len(told) == 1
    assert "its 100,000 are used up on 2026-11-28" in told[0]
    assert stage.meter.outlook.stretch == 8


async def test_the_rest_is_kept_for_what_is_queued(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.account(50_000, tasks=10)
    assert stage.gate.verbs == ["open"]
    # 1.5 x 500 tasks x 8 requests
    await stage.account(94_000, tasks=500)
    [_, closed] = stage.gate.asked
    reset = "2026-12-01 00:00 UTC"
    assert closed == (
        "close",
        f"of 100,000 requests 6,000 remain until {reset}, for the tasks that are queued",
        "2026-12-01T00:00:00+00:00",
    )
    assert stage.meter.is_closed
    assert "takes no more tasks: 6,000 requests remain for the 500 that it has" in caplog.text
    # As they are done there is room again, and it stays closed: else it would open and close.
    await stage.account(96_000, tasks=0)
    await stage.account(97_000, tasks=None)
    assert stage.gate.verbs == ["open", "close"]
    await stage.account(97_010, after=timedelta(days=5), tasks=0)
    assert stage.gate.verbs == ["open", "close", "open"]
    assert not stage.meter.is_closed


async def test_it_stays_closed_however_early_it_was(stage: Stage) -> None:
    for _ in range(3):
        await stage.account(10_000, tasks=50_000)
    await stage.account(10_000, tasks=0)
    assert stage.gate.verbs == ["close"]


async def test_at_the_wall_there_is_no_rest(stage: Stage) -> None:
    await stage.account(100_000, tasks=0)
    assert stage.gate.verbs == ["close"]


async def test_nothing_is_done_while_nobody_knows_what_is_queued(stage: Stage) -> None:
    await stage.account(99_999, tasks=None)
    assert stage.gate.asked == []


async def test_a_restart_leaves_it_closed_or_puts_it_right(stage: Stage) -> None:
    await stage.account(99_000, tasks=500)
    stage.meter.save()
    stage.restart()
    await stage.account(99_000, tasks=500)
    assert stage.gate.verbs == ["close", "close"]
    # A larger limit, with a restart.
    stage.meter.save()
    stage.budget = Budget(500_000, "month")
    stage.restart()
    await stage.account(99_000, tasks=500)
    assert stage.gate.verbs == ["close", "close", "open"]


async def test_a_restart_opens_nothing_though_its_queues_are_empty_by_then(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    await stage.account(94_000, tasks=500)
    # However it ended, and though nobody knows yet what the broker has.
    stage.restart()
    await stage.account(95_000, tasks=None)
    assert caplog.messages[-1].endswith(
        "takes no more tasks: 5,000 requests remain for those that it has"
    )
    await stage.account(95_000, tasks=0)
    assert stage.gate.verbs == ["close", "close"]
    assert stage.meter.is_closed
    stage.restart()
    await stage.account(95_010, after=timedelta(days=5), tasks=0)
    assert stage.gate.verbs == ["close", "close", "open"]


async def test_a_count_that_people_correct_opens_what_it_had_closed(stage: Stage) -> None:
    await stage.account(94_000, tasks=500)
    stage.used_so_far = 60_000
    stage.restart()
    await stage.account(94_000, tasks=500)
    assert stage.gate.verbs == ["close", "open"]
    stage.restart()
    await stage.account(94_000, tasks=500)
    assert not stage.meter.is_closed


async def test_a_broker_that_cannot_be_told_is_told_a_minute_later(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.gate.away = True
    for _ in range(5):
        await stage.account(99_999, tasks=500)
    assert stage.gate.verbs == ["close"]
    await stage.account(99_999, tasks=500, after=timedelta(seconds=61))
    assert stage.gate.verbs == ["close", "close"]
    # Once: a missing right lasts.
    assert caplog.text.count("the primary broker did not close to producers: away") == 1
    stage.gate.away = False
    await stage.account(99_999, tasks=500, after=timedelta(seconds=61))
    assert stage.gate.verbs == ["close", "close", "close"]
    assert stage.meter.is_closed


async def test_a_clock_that_is_set_back_puts_nothing_off(stage: Stage) -> None:
    stage.gate.away = True
    await stage.account(99_999, tasks=500)
    stage.gate.away = False
    await stage.account(99_999, tasks=500, after=timedelta(days=-3))
    assert stage.meter.is_closed
    stage.restart()
    assert stage.meter.used == {"workers": 99_999}


@pytest.mark.parametrize("known", [True, False], ids=["restarted", "accounts are new"])
async def test_what_was_asked_while_nobody_counted_is_no_rate(
    stage: Stage, caplog: pytest.LogCaptureFixture, *, known: bool
) -> None:
    if known:
        await stage.account(100)
        stage.meter.save()
    stage.now += timedelta(hours=20)
    stage.restart()
    for minute in range(10):
        await stage.account(20_000 + 10 * minute, after=timedelta(minutes=1))
    assert stage.meter.outlook.used == 20_090
    assert stage.meter.outlook.per_hour == pytest.approx(600, rel=0.2)
    assert stage.meter.outlook.stretch == 1
    assert "are used up on" not in caplog.text


async def test_what_was_asked_while_nobody_counted_is_no_tasks_price(stage: Stage) -> None:
    """Else a restart in the middle of work sends producers away until the reset."""
    await stage.account(100, tasks=100, instances=(make_instance(1, "busy"),))
    stage.meter.save()
    stage.restart()
    for ended in range(40):
        busy = make_instance(1, "busy", tasks_ended=1000 + ended)
        await stage.account(20_000 + 6 * ended, tasks=1000, instances=(busy,))
    assert stage.meter.requests_per_task == pytest.approx(6, abs=0.5)
    assert not stage.meter.is_closed


async def test_what_a_task_costs_is_measured(stage: Stage) -> None:
    assert stage.meter.requests_per_task == 8
    for step in range(1, 12):
        done = make_instance(1, tasks_ended=2 * step)
        await stage.account(12 * step, instances=(done,))
    assert stage.meter.requests_per_task == pytest.approx(6, abs=0.5)


async def test_what_a_long_task_asks_while_it_runs_is_its_own(stage: Stage) -> None:
    """Between two ends there are many turns; what is asked at rest is nobody's."""
    asked = 0
    for task in range(1, 26):
        for _ in range(5):
            asked += 4
            running = make_instance(1, "busy", tasks_ended=task - 1)
            await stage.account(asked, instances=(running,))
        await stage.account(asked, instances=(make_instance(1, tasks_ended=task),))
        for _ in range(5):
            asked += 100
            await stage.account(asked, instances=(make_instance(1, tasks_ended=task),))
    assert stage.meter.requests_per_task == pytest.approx(20, abs=1)

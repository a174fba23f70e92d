"""Flower's faults from HTTP to the plan: nothing is done on an answer that is no length."""

from __future__ import annotations

import tracemalloc

import pytest

from swarm.scaler.adapters.flower import FlowerQueues
from swarm.scaler.model import InstanceState, Outcome, Start
from swarm.scaler.ports import BrokerSide
from swarm.scaler.reconcile import Reconciler
from swarm.settings import FlowerSettings
from tests.builders import AT, NOW, make_settings
from tests.fakes import FakeQueues, FakeUnits, FakeView
from tests.wrong_flower import FAULTS, Answer, WrongFlower, lengths, row


async def turned(flower: WrongFlower, turns: int = 4) -> tuple[FakeUnits, list[Outcome]]:
    """Turns over a host with two idle instances and one at work, more than are needed."""
    settings = make_settings(
        hosts={"h1": {"address": "local", "max_instances": 8}},
        scaler={"stabilisation_s": 0},
        flower={"url": flower.url, "timeout_s": 0.3},
    )
    host = FakeUnits("h1")
    for number, state in enumerate((InstanceState.IDLE, InstanceState.IDLE, InstanceState.BUSY)):
        host.add("browser", 1 + number, state, state_for_s=600.0)
    async with FlowerQueues(settings.flower, WrongFlower.auth) as queues:
        view = FakeView(FakeQueues({"analysis": 0}))
        reconciler = Reconciler(settings, {"primary": BrokerSide(queues, view)}, {"h1": host})
        outcomes = [await reconciler.turn(NOW + 2.0 * turn, at=AT) for turn in range(1, 1 + turns)]
    return host, outcomes


async def test_on_a_right_answer_something_is_done() -> None:
    """So that nothing is done below is because of what is wrong there."""
    with WrongFlower(Answer(lengths(row(50)))) as flower:
        host, _ = await turned(flower)
    assert {type(action) for action in host.asked} == {Start}
    with WrongFlower(Answer(lengths(row(0)))) as flower:
        host, _ = await turned(flower)
    assert {type(action).__name__ for action in host.asked} == {"Drain"}


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_flower_answers_nothing_is_started_and_nothing_stopped(fault: str) -> None:
    with WrongFlower(FAULTS[fault]) as flower:
        host, outcomes = await turned(flower)
    assert host.asked == []
    assert len(host.instances) == 3
    for outcome in outcomes:
        decision = outcome.decisions["browser"]
        assert decision.cause == "queue-unknown"
        assert FAULTS[fault].told in decision.reason
        # It goes to the journal, to systemd and to a terminal.
        assert decision.reason.isprintable()
        assert len(decision.reason) < 600
    # Whoever redirects is not followed, nor is the password shown to others.
    assert all(asked.startswith(b"GET /api/queues/length ") for asked in flower.asked)


@pytest.mark.parametrize(
    "fault", ["a body without end", "a header without end", "half a gigabyte, packed"]
)
async def test_an_answer_without_end_takes_no_memory(fault: str) -> None:
    with WrongFlower(FAULTS[fault]) as flower:
        settings = FlowerSettings(url=flower.url, timeout_s=5.0)
        tracemalloc.start()
        try:
            async with FlowerQueues(settings, None) as queues:
                await queues.waiting(["browser"])
                # Its metrics, which may be long: they are read for metered brokers.
                assert await queues.requests() is None
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # Of the metrics 16 MB are read, and may be there twice for a moment.
    assert peak < 48 * 2**20


async def test_figures_are_asked_for_that_no_cache_has_kept() -> None:
    with WrongFlower(Answer(lengths(row(5), headers=("Age: 0",)))) as flower:
        async with FlowerQueues(FlowerSettings(url=flower.url), None) as queues:
            assert await queues.waiting(["browser"]) == {"browser": 5}
    assert b"\r\nCache-Control: no-cache\r\n" in flower.asked[0]


async def test_a_queue_that_is_listed_twice_with_one_length_has_that() -> None:
    with WrongFlower(Answer(lengths(row(5), row(5)))) as flower:
        async with FlowerQueues(FlowerSettings(url=flower.url), None) as queues:
            assert await queues.waiting(["browser"]) == {"browser": 5}

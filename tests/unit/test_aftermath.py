"""What became of stops: a kill is never missed, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from swarm.scaler.aftermath import Aftermath, Event
from swarm.scaler.model import (
    Action,
    ActionResult,
    Drain,
    Instance,
    Outcome,
    Start,
    Stop,
    Unknown,
)
from tests.builders import NOW, make_instance, make_observation

STOP = Stop("h1", "browser", 1)
START = Start("h1", "browser", 2)


class Turns:
    """Pictures one after the other, two seconds apart."""

    def __init__(self) -> None:
        self.aftermath = Aftermath()
        self.now = NOW

    def turn(
        self, *instances: Instance, did: Action | None = None, away: bool = False
    ) -> list[Event]:
        self.now += 2
        shown: Unknown | tuple[Instance, ...] = Unknown("no answer") if away else instances
        results = () if did is None else (ActionResult(did),)
        outcome = Outcome(make_observation(0, shown, now=self.now), {}, results)
        return [finding.event for finding in self.aftermath.take(outcome)]


@pytest.fixture
def turns() -> Turns:
    turns = Turns()
    turns.turn(make_instance(1), did=STOP)
    return turns


def test_an_instance_that_is_killed_as_it_stops_is_one_kill(turns: Turns) -> None:
    assert turns.turn(make_instance(1, "stopping")) == []
    assert turns.turn(make_instance(1, "failed", killed=True)) == [Event.KILL]
    assert turns.turn(make_instance(1, "failed", killed=True)) == []


def test_a_kill_that_is_seen_late_is_one_as_well(turns: Turns) -> None:
    for _ in range(50):
        assert turns.turn(away=True) == []
    assert turns.turn(make_instance(1, "failed", killed=True)) == [Event.KILL]


def test_a_stop_that_goes_well_is_nothing(turns: Turns) -> None:
    assert turns.turn(make_instance(1, "stopping")) == []
    assert turns.turn() == []
    # Another process, on which nobody laid hand.
    assert turns.turn(make_instance(1, "failed", killed=True)) == []


def test_one_that_ended_with_a_status_of_its_own_was_not_killed(turns: Turns) -> None:
    assert turns.turn(make_instance(1, "failed")) == []


def test_one_that_nobody_stopped_is_not_ours(turns: Turns) -> None:
    assert turns.turn(make_instance(2, "failed", killed=True)) == []


def test_a_task_that_slipped_in_is_told_once(turns: Turns) -> None:
    assert turns.turn(make_instance(1, "stopping", active=1)) == [Event.LATE_TASK]
    assert turns.turn(make_instance(1, "stopping", active=1)) == []
    assert turns.turn() == []


@pytest.mark.parametrize(("after_s", "expected"), [(2, [Event.REVERSAL]), (302, [])])
def test_a_start_soon_after_a_stop_is_a_reversal(
    turns: Turns, after_s: float, expected: list[Event]
) -> None:
    turns.now += after_s - 2
    assert turns.turn(did=START) == expected
    assert turns.turn(did=START) == []


def test_a_start_of_another_pool_takes_nothing_back(turns: Turns) -> None:
    assert turns.turn(did=Start("h1", "analysis", 1)) == []


def test_a_drain_is_no_stop() -> None:
    turns = Turns()
    turns.turn(make_instance(1), did=Drain("h1", "browser", 1))
    assert turns.turn(make_instance(1, "failed", killed=True), did=START) == []

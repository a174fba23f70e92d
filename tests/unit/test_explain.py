"""An explanation has the figures that decided, and what it says would change them is true."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import pytest

from swarm.scaler import policy
from swarm.scaler.explain import as_values, explain
from swarm.scaler.limits import Override, effective
from swarm.scaler.model import Decision, HostReport, Instance, PoolMemory, Unknown
from swarm.settings import PoolSettings, ScalerSettings
from tests.builders import (
    AT,
    make_inputs,
    make_instances,
    make_observation,
    make_pool,
    make_scaler,
)


class Case:
    """One decision about `browser`, with all that was known for a while."""

    def __init__(
        self,
        waiting: int | Unknown = 0,
        instances: Iterable[Instance] = (),
        *,
        drainable: int = 0,
        hosts: dict[str, HostReport | Unknown] | None = None,
        override: Override | None = None,
        at: datetime = AT,
        scaler: ScalerSettings | None = None,
        **pool: Any,
    ) -> None:
        self.pool: PoolSettings = make_pool(**pool)
        self.scaler = scaler or make_scaler()
        self.instances, self.hosts = tuple(instances), hosts
        self.drainable, self.override, self.at = drainable, override, at
        self.decision = self.decide(waiting)

    def decide(self, waiting: int | Unknown, *, memory: PoolMemory | None = None) -> Decision:
        observation = make_observation(waiting, self.instances, hosts=self.hosts)
        inputs = make_inputs(observation, self.pool, self.scaler, drainable=self.drainable)
        limits = effective(self.pool, self.at, (self.override,) if self.override else ())
        memory = memory or PoolMemory(fresh_turns=9)
        decision, _ = policy.decide("browser", self.pool, self.scaler, inputs, limits, memory)
        return decision

    @property
    def lines(self) -> list[str]:
        return list(explain(self.decision, self.pool, self.scaler))


def test_the_formula_has_its_figures_filled_in() -> None:
    case = Case(120, make_instances(busy=2, idle=1), min_instances=1, max_instances=20, spare=1)
    assert case.lines == [
        "browser: up 3 -> 20 (120 waiting, want 123, limit: max_instances 20)",
        "  waiting: 120",
        "  instances: 1 idle, 2 busy",
        "  tasks: 2 run, 0 taken and not begun, 0 places of busy instances are free",
        "  times: a task takes 5 s (expected_service_time_s), a start 3 s (expected_boot_time_s)",
        "  pace: 0 tasks end in a second",
        (
            "  k: int((3 - 3) / 5) = 0 tasks that a new place takes after its first, "
            "within target_wait_s"
        ),
        "  left: 120 waiting - 0 free places of busy instances - 0 x 3 s = 120",
        "  need: 2 busy + ceil(120 / (1 + 0) / 1) = 122",
        (
            "  keep: the most of need + spare 123, minimum 1 and 0 worth keeping by the last 60 s, "
            "at most 20 = 20"
        ),
        "  limits: minimum 1 (min_instances), maximum 20 (max_instances), spare 1 (spare)",
        "  the limit that won: max_instances 20",
        "  another one starts now",
        "  one stops when the last 60 s make no more than 2 worth keeping",
    ]


@pytest.mark.parametrize(
    ("states", "settings"),
    [
        ({"busy": 2, "idle": 1}, {"max_instances": 20}),
        ({"busy": 2}, {"max_instances": 20, "spare": 2}),
        ({}, {"max_instances": 20}),
        ({"idle": 4}, {"max_instances": 20, "min_instances": 2}),
        ({"busy": 3}, {"max_instances": 20, "expected_service_time_s": 600.0}),
        ({"busy": 3, "idle": 2}, {"max_instances": 20, "expected_service_time_s": 0.1}),
    ],
)
def test_the_backlog_that_it_names_is_the_least_that_starts_another(
    states: dict[str, int], settings: dict[str, Any]
) -> None:
    case = Case(0, make_instances(**states), **settings)
    case.decision = held = case.decide(0)
    [line] = [line for line in case.lines if "another one starts" in line]
    if held.desired > held.running:
        assert line == "  another one starts now"
        return
    count = int(line.removeprefix("  another one starts with ").removesuffix(" waiting"))
    assert case.decide(count).desired > held.running
    assert case.decide(count - 1).desired <= held.running


@pytest.mark.parametrize(
    ("case", "start", "stop"),
    [
        (
            Case(0, make_instances(busy=6)),
            "never: 6 is the maximum (max_instances)",
            "when the last 60 s make no more than 5 worth keeping",
        ),
        (
            Case(99, make_instances(busy=6)),
            "no sooner than its limit lets it: max_instances 6",
            "when the last 60 s make no more than 5 worth keeping",
        ),
        (Case(0), "with 1 waiting", "never: none runs"),
        (
            Case(0, make_instances(idle=1), min_instances=1),
            "with",
            "never: 1 is the minimum (min_instances)",
        ),
        (Case(0, make_instances(idle=3)), "with", "when one is idle that may be drained"),
        (Case(0, make_instances(idle=3), drainable=2), "with", "now"),
        (
            Case(0, make_instances(idle=3), hosts={"h2": Unknown("no answer")}),
            "with",
            "once h2 answers",
        ),
        (
            Case(0, make_instances(idle=3, unreported=2)),
            "with",
            "once the 2 that do not report do so",
        ),
        (
            Case(Unknown("401"), make_instances(idle=3)),
            "once the queue's length is known, or fewer than the minimum run",
            "once the queue's length is known",
        ),
        (
            Case(9, make_instances(busy=1), override=Override("by anna", no_starts=True)),
            "no sooner than scaling out is resumed (paused by anna)",
            "when the last 60 s make no more than 0 worth keeping",
        ),
        (
            Case(0, make_instances(idle=3), override=Override("by anna", no_stops=True)),
            "with",
            "no sooner than scaling in is resumed (paused by anna)",
        ),
        (
            Case(0, make_instances(idle=2), override=Override("set by anna", 2, 2, 0)),
            "never: 2 is the maximum (set by anna)",
            "never: 2 is the minimum (set by anna)",
        ),
    ],
)
def test_what_would_have_to_change_is_told(case: Case, start: str, stop: str) -> None:
    *_, to_start, to_stop = case.lines
    assert to_start.startswith(f"  another one starts {start}")
    assert to_stop.startswith(f"  one stops {stop}")


def test_after_a_restart_it_is_too_early_to_stop() -> None:
    case = Case(0, make_instances(idle=3), drainable=3)
    case.decision = case.decide(0, memory=PoolMemory())
    assert case.lines[-1].startswith("  one stops no sooner than in the next turn")


def test_programs_are_told_the_same() -> None:
    case = Case(99, make_instances(busy=6), hosts={"h2": Unknown("no answer")})
    told = json.loads(json.dumps(as_values(case.decision, case.pool, case.scaler)))
    assert told["basis"]["inputs"]["busy"] == 6
    assert told["basis"]["reckoning"]["need"] == case.decision.wanted
    assert told["limit"] == "max_instances 6"
    assert told["to_start"] == "no sooner than its limit lets it: max_instances 6"


def test_what_is_not_known_is_said() -> None:
    case = Case(Unknown("401"), make_instances(idle=1), hosts={"h2": Unknown("no answer")})
    assert "  waiting: unknown (401)" in case.lines
    assert "  away: h2" in case.lines
    assert not any("formula" in line or "need:" in line for line in case.lines)

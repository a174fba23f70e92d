"""Instances that are cut off from a broker which answers the scaler."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.scaler.model import BrokerCondition, HostReport, Instance, InstanceState, Unknown
from swarm.scaler.reach import CUT_OFF_AFTER_S, Reach
from tests.builders import make_instance, make_settings

ANSWERS = {"primary": BrokerCondition(reached=True)}
CUT = make_instance(1, "idle", connected=False)


def seen(reach: Reach, now: float, *instances: Instance, **conditions: Any) -> list[Instance]:
    hosts: dict[str, HostReport | Unknown] = {"h1": HostReport(instances), "h2": Unknown("away")}
    judged = reach.seen(now, hosts, conditions or ANSWERS)
    assert judged["h2"] == Unknown("away")
    report = judged["h1"]
    assert isinstance(report, HostReport)
    return list(report.instances)


def make_reach() -> Reach:
    return Reach(make_settings().pools)


def test_one_that_is_cut_off_for_long_takes_no_tasks_and_says_why() -> None:
    reach = make_reach()
    for now in (0.0, 15.0, CUT_OFF_AFTER_S - 0.1):
        assert seen(reach, now, CUT) == [CUT]
    [paused] = seen(reach, CUT_OFF_AFTER_S, CUT)
    assert paused.state is InstanceState.PAUSED
    assert paused.cut_off
    assert paused.trouble == "its host does not reach the primary broker, which answers the scaler"
    # It is itself again at once, and what was before does not count the next time.
    again = make_instance(1, "idle", connected=True)
    assert seen(reach, 100.0, again) == [again]
    assert seen(reach, 102.0, CUT) == [CUT]


@pytest.mark.parametrize(
    "instance",
    [
        make_instance(1, "busy", connected=False),
        make_instance(1, "starting", connected=False),
        make_instance(1, "unreported", connected=False),
        make_instance(1, "idle", connected=None),
        make_instance(1, "idle", connected=True),
        make_instance(1, "idle", connected=False, pool="forgotten"),
    ],
)
def test_nobody_else_is(instance: Instance) -> None:
    reach = make_reach()
    for now in (0.0, 100.0, 1000.0):
        assert seen(reach, now, instance) == [instance]


@pytest.mark.parametrize(
    "condition",
    [
        # Down, and of unknown state: refused, not understood, not looked at yet.
        BrokerCondition(5.0, "Connection refused"),
        BrokerCondition(),
    ],
)
def test_none_is_while_the_scaler_itself_does_not_reach_the_broker(
    condition: BrokerCondition,
) -> None:
    reach = make_reach()
    for now in (0.0, 100.0, 1000.0):
        assert seen(reach, now, CUT, primary=condition) == [CUT]
    # When it is back, all have as long again to connect.
    assert seen(reach, 1002.0, CUT) == [CUT]
    assert seen(reach, 1002.0 + CUT_OFF_AFTER_S - 1, CUT) == [CUT]

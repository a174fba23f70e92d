"""What operators are answered, and which orders hold after it."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.errors import ConfigError
from swarm.scaler.control import Answer, Control
from swarm.scaler.model import Cause, Decision, Direction, Instance, Outcome, Unknown
from swarm.scaler.orders import Order, OrderKind
from tests.builders import make_instance, make_observation, make_settings
from tests.fakes import FakeOrders

#: 2026-03-01 12:00 UTC.
NOON = 1772366400.0


class Desk:
    """An operator before a scaler of two pools on two hosts."""

    def __init__(self, **sections: Any) -> None:
        self.orders = FakeOrders()
        self.turns_asked = 0
        self.control = Control(
            make_settings(**sections), self.orders, clock=lambda: NOON, on_order=self.ask_for_turn
        )

    def ask_for_turn(self) -> None:
        self.turns_asked += 1

    def see(self, *instances: Instance, running: int = 0, h1: Unknown | None = None) -> None:
        decision = Decision(
            "browser", Direction.HOLD, running, running, running, Cause.ENOUGH, "enough"
        )
        observation = make_observation(0, h1 or instances)
        self.control.saw(Outcome(observation, {"browser": decision}))

    def say(self, verb: str, **fields: Any) -> Answer:
        return self.control.answer(verb, fields, "anna")

    def lines(self, verb: str, **fields: Any) -> list[str]:
        lines: list[str] = self.say(verb, **fields)["lines"]
        return lines


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.mark.parametrize(
    ("verb", "kinds", "meaning"),
    [
        ("pause", {OrderKind.PAUSE_IN, OrderKind.PAUSE_OUT}, "nothing is started and nothing is"),
        ("pause-in", {OrderKind.PAUSE_IN}, "nothing is stopped; what is needed is started"),
        ("pause-out", {OrderKind.PAUSE_OUT}, "nothing is started, not even a minimum"),
    ],
)
def test_a_pause_lasts_an_hour_unless_told_otherwise(
    desk: Desk, verb: str, kinds: set[OrderKind], meaning: str
) -> None:
    *orders, said = desk.lines(verb)
    assert said.startswith(meaning)
    assert all(order.endswith("by anna until 2026-03-01 13:00 UTC") for order in orders)
    assert {order.kind for order in desk.orders.standing()} == kinds
    desk.say(verb, for_s=60.0)
    assert {order.until for order in desk.orders.standing()} == {NOON + 60}
    assert desk.turns_asked == 2
    lines = desk.lines("resume")
    assert len(lines) == len(kinds)
    assert all(line.startswith("no longer: scaling ") for line in lines)
    assert desk.orders.standing() == ()
    assert desk.lines("resume") == ["scaling is not paused"]
    assert desk.turns_asked == 3


@pytest.mark.parametrize(
    ("running", "way"),
    [
        (2, "2 run, 2 more are started, as fast as the hosts may"),
        (6, "6 run, 2 are stopped, each once it has proved idle"),
        (4, "4 run"),
    ],
)
def test_a_number_is_held_and_the_way_there_is_told(desk: Desk, running: int, way: str) -> None:
    desk.see(running=running)
    said, told = desk.lines("set", pool="browser", instances=4, for_s=1800.0)
    assert said == "browser is held at 4 by anna until 2026-03-01 12:30 UTC"
    assert told == way
    [line] = desk.lines("set", pool="browser", instances="auto")
    assert line == f"no longer: {said}"
    assert desk.lines("set", pool="browser", instances="auto") == ["browser is not held"]


def test_before_the_first_turn_nobody_knows_the_way(desk: Desk) -> None:
    assert desk.lines("set", pool="browser", instances=4)[1].startswith("no turn has ended yet")
    assert desk.lines("drain", host="h1")[2].startswith("it does not answer")


def test_a_pause_that_hinders_an_order_is_named(desk: Desk) -> None:
    desk.say("pause-out")
    desk.see(make_instance(1), running=2)
    hindered = "but scaling out is paused: not before 2026-03-01 13:00 UTC"
    assert hindered in desk.lines("set", pool="browser", instances=4)
    assert hindered not in desk.lines("set", pool="browser", instances=1)
    assert hindered not in desk.lines("drain", host="h1")
    desk.say("pause-in")
    hindered = "but scaling in is paused: not before 2026-03-01 13:00 UTC"
    assert hindered in desk.lines("set", pool="browser", instances=1)
    assert hindered in desk.lines("drain", host="h1")


def test_a_number_beyond_max_instances_or_the_hosts_is_refused(desk: Desk) -> None:
    expected = "N: got 7, expected at most 6, as max_instances and the pool's hosts allow"
    with pytest.raises(ConfigError, match=expected):
        desk.say("set", pool="browser", instances=7)
    small = Desk(hosts={"h1": {"address": "local", "max_instances": 2}})
    with pytest.raises(ConfigError, match="at most 2"):
        small.say("set", pool="browser", instances=3)
    assert desk.orders.standing() == small.orders.standing() == ()


def test_a_drain_tells_what_becomes_of_whom(desk: Desk) -> None:
    desk.say("pin", host="h1", pool="browser", number=4)
    desk.see(
        make_instance(1, "busy"), make_instance(2), make_instance(3, "failed"), make_instance(4)
    )
    assert desk.lines("drain", host="h1") == [
        "h1 is drained by anna since 2026-03-01 12:00 UTC",
        "nothing is started there until `swarm scaler undrain h1`",
        "1 idle: stopped once they have proved it, within some 8 s",
        "1 not idle: each is stopped after its task, which may take 120 s",
        "celery-browser@4 on h1 stays: it is pinned",
    ]
    [line] = desk.lines("undrain", host="h1")
    assert line == "no longer: h1 is drained by anna since 2026-03-01 12:00 UTC"
    assert desk.lines("undrain", host="h1") == ["h1 is not drained"]


def test_a_drain_leaves_alone_what_config_yaml_does_not_have(desk: Desk) -> None:
    desk.see(make_instance(1, "busy", pool="old"))
    assert desk.lines("drain", host="h1")[1:] == [
        "nothing is started there until `swarm scaler undrain h1`",
        "celery-old@1 on h1 stays: config.yaml has no pool old",
    ]
    assert [order.host for order in desk.orders.standing()] == ["h1"]


def test_a_drain_of_a_host_that_is_empty_or_away_says_so(desk: Desk) -> None:
    desk.see()
    assert desk.lines("drain", host="h1")[-1] == "no instance is there"
    desk.see(h1=Unknown("no answer"))
    assert desk.lines("drain", host="h1")[-1].startswith("it does not answer: nothing is stopped")


def test_a_pin_of_what_does_not_run_starts_nothing(desk: Desk) -> None:
    desk.see(make_instance(1))
    assert len(desk.lines("pin", host="h1", pool="browser", number=1)) == 2
    absent = desk.lines("pin", host="h1", pool="browser", number=2)
    assert absent[-1] == "it does not run now, and is not started for that"
    [line] = desk.lines("unpin", host="h1", pool="browser", number=2)
    assert line.startswith("no longer: celery-browser@2 on h1 is pinned by anna")
    again = desk.lines("unpin", host="h1", pool="browser", number=2)
    assert again == ["celery-browser@2 on h1 is not pinned"]


def test_what_is_for_a_pool_or_host_that_is_gone_can_be_withdrawn(desk: Desk) -> None:
    desk.orders.give(Order(OrderKind.DRAIN, "root", NOON, host="old"))
    desk.orders.give(Order(OrderKind.PIN, "root", NOON, host="old", pool="gone", number=1))
    desk.orders.give(Order(OrderKind.SET, "root", NOON, NOON + 60, pool="gone", instances=1))
    assert desk.lines("undrain", host="old")[0].startswith("no longer")
    assert desk.lines("unpin", host="old", pool="gone", number=1)[0].startswith("no longer")
    assert desk.lines("set", pool="gone", instances="auto")[0].startswith("no longer")
    assert desk.orders.standing() == ()


@pytest.mark.parametrize(
    ("verb", "fields", "error"),
    [
        ("dance", {}, "verb: got 'dance', expected one of "),
        ("drain", {"host": "h9"}, "HOST: got 'h9', expected one of h1, h2"),
        ("undrain", {"host": "h9"}, "HOST: got 'h9', expected one of h1, h2"),
        ("drain", {}, "host: got nothing, expected a value"),
        ("set", {"pool": "p", "instances": 1}, "POOL: got 'p', expected one of browser, analysis"),
        ("set", {"pool": "p", "instances": "auto"}, "POOL: got 'p', expected one of"),
        ("set", {"pool": "browser", "instances": -1}, "instances"),
        ("set", {"pool": "browser", "instances": True}, "instances"),
        ("set", {"pool": "browser", "instances": 1, "for_s": 0.0}, "for_s: got 0.0"),
        ("pause", {"for_s": 604801.0}, "for_s: got 604801.0, expected it to be less than or equal"),
        ("pause", {"for_s": float("nan")}, "for_s: got nan"),
        ("pause", {"colour": 1}, "colour: got 1, expected no such"),
        ("pin", {"host": "h1", "pool": "browser", "number": 100}, "number: got 100"),
        ("pin", {"host": "h1", "pool": "p", "number": 1}, "POOL: got 'p'"),
        ("unpin", {"host": "h1", "pool": "p", "number": 1}, "POOL: got 'p'"),
    ],
)
def test_what_cannot_be_asked_is_named_and_changes_nothing(
    desk: Desk, verb: str, fields: dict[str, Any], error: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        desk.say(verb, **fields)
    assert error in str(raised.value)
    assert desk.orders.standing() == ()
    assert desk.turns_asked == 0


def test_a_pin_where_the_pool_does_not_run_is_refused() -> None:
    desk = Desk(hosts={"h1": {"address": "local", "max_instances": 4, "pools": ["analysis"]}})
    with pytest.raises(ConfigError, match=r"POOL: got 'browser', expected a pool that hosts.h1"):
        desk.say("pin", host="h1", pool="browser", number=1)


def test_an_order_that_a_restart_would_not_know_says_so(desk: Desk) -> None:
    desk.orders.problem = "/data/orders.json not written (No space left on device)"
    said = "this holds now, but a restart of the scaler would not know it: /data/orders.json not"
    assert desk.lines("pause")[-1].startswith(said)
    assert desk.lines("resume")[-1].startswith(said)
    assert desk.lines("drain", host="h1")[-1].startswith(said)


def test_a_host_that_was_added_can_be_drained(desk: Desk) -> None:
    with pytest.raises(ConfigError):
        desk.say("drain", host="h9")
    desk.control.configure(make_settings(hosts={"h9": {"address": "local", "max_instances": 4}}))
    desk.say("drain", host="h9")
    assert [order.host for order in desk.orders.standing()] == ["h9"]

"""The journal: each change once, each with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from swarm.scaler.model import (
    ActionResult,
    BrokerCondition,
    Cause,
    Decision,
    Direction,
    Drain,
    HostReport,
    Outcome,
    Renew,
    Start,
    Stop,
    Undrain,
    Unknown,
)
from swarm.scaler.orders import Order, OrderKind
from swarm.scaler.snapshot import Snapshots
from swarm.scaler.story import Narrator, describe, status_line
from tests.builders import NOW, make_draining, make_instance, make_instances, make_observation

ENOUGH = Decision("browser", Direction.HOLD, 1, 1, 1, Cause.ENOUGH, "as many as needed")
UP = Decision(
    "browser", Direction.UP, 1, 5, 9, Cause.BACKLOG, "120 waiting", "at most 4 or double in 10 s"
)
HELD = Decision(
    "browser", Direction.HOLD, 1, 1, 1, Cause.QUEUE_UNKNOWN, "holding: queue length unknown (401)"
)


def outcome(decision: Decision = ENOUGH, *results: ActionResult, **fields: Any) -> Outcome:
    notes = fields.pop("notes", ())
    return Outcome(make_observation(**fields), {"browser": decision}, tuple(results), tuple(notes))


def told(outcomes: Iterable[Outcome]) -> list[list[tuple[bool, str]]]:
    narrator = Narrator()
    return [list(narrator.lines(each)) for each in outcomes]


def test_a_decision_reads_as_a_sentence_with_its_reason() -> None:
    assert describe(UP) == (
        "browser: up 1 -> 5 (120 waiting, want 9, limit: at most 4 or double in 10 s)"
    )
    assert describe(ENOUGH) == "browser: stay at 1 (as many as needed)"


def test_what_repeats_itself_is_said_once() -> None:
    assert told([outcome()] * 3) == [[(False, "browser: stay at 1 (as many as needed)")], [], []]


def test_a_step_up_that_finds_no_host_is_said_once() -> None:
    blocked = [
        outcome(
            Decision("browser", Direction.UP, 4, 6, 9, Cause.BACKLOG, f"{waiting} waiting"),
            notes=["browser: 2 of 2 starts wait, every host is full"],
        )
        for waiting in (100, 99, 98)
    ]
    assert [len(lines) for lines in told(blocked)] == [2, 0, 0]


def test_a_pile_that_grows_and_shrinks_before_full_hosts_is_said_once() -> None:
    def blocked(count: int, why: str = "every host is full") -> Outcome:
        wants = Decision("browser", Direction.UP, 4, 4 + count, 9, Cause.BACKLOG, "waiting")
        other = "analysis: 1 of 1 starts wait, every host is full"
        return outcome(wants, notes=[f"browser: {count} of {count} starts wait, {why}", other])

    lines = told([*map(blocked, (2, 3, 2, 5)), blocked(5, "instances failed on h1")])
    assert [len(each) for each in lines] == [3, 0, 0, 0, 1]
    # A step that was made is news however large the next one is.
    grown = Decision("browser", Direction.UP, 6, 9, 9, Cause.BACKLOG, "waiting")
    assert told([blocked(5), outcome(grown)])[1] == [(False, "browser: up 6 -> 9 (waiting)")]


def test_what_lies_between_two_steps_is_no_news_but_after_trouble() -> None:
    keeps = Decision("browser", Direction.HOLD, 5, 5, 3, Cause.STABILISING, "5 worth keeping")
    enough = Decision("browser", Direction.HOLD, 5, 5, 5, Cause.ENOUGH, "as many as needed")
    full = Decision("browser", Direction.HOLD, 5, 5, 9, Cause.AT_LIMIT, "9 waiting", "max 5")
    lines = told(map(outcome, (UP, keeps, enough, full, keeps, full, HELD, keeps, enough, full)))
    assert [len(each) for each in lines] == [1, 0, 0, 1, 0, 0, 1, 1, 0, 1]


def test_a_limit_is_news_again_after_a_minute_of_calm() -> None:
    full = Decision("browser", Direction.HOLD, 5, 5, 9, Cause.AT_LIMIT, "9 waiting", "max 5")
    calm = Decision("browser", Direction.HOLD, 5, 5, 5, Cause.ENOUGH, "as many as needed")
    turns = [(full, 0.0), (calm, 2.0), (full, 61.0), (calm, 62.0), (calm, 80.0), (full, 122.0)]
    narrator = Narrator()
    lines = [
        list(narrator.lines(Outcome(replace(make_observation(), now=at), {"browser": decision})))
        for decision, at in turns
    ]
    assert [len(each) for each in lines] == [1, 0, 0, 0, 0, 1]


def test_two_equal_steps_are_both_said() -> None:
    first = Decision("browser", Direction.DOWN, 4, 3, 0, Cause.SURPLUS, "0 needed")
    hold = Decision("browser", Direction.HOLD, 3, 3, 0, Cause.SURPLUS, "waiting")
    second = Decision("browser", Direction.DOWN, 3, 2, 0, Cause.SURPLUS, "0 needed")
    lines = told([outcome(first), outcome(hold), outcome(second)])
    assert lines[0]
    assert lines[2]


def test_holding_on_what_is_unknown_is_a_warning_said_once() -> None:
    lines = told([outcome(), outcome(HELD), outcome(HELD), outcome()])
    assert lines[1] == [(True, "browser: stay at 1 (holding: queue length unknown (401))")]
    assert lines[2] == []
    assert lines[3] == [(False, "browser: stay at 1 (as many as needed)")]


def test_a_host_leaves_and_returns_once() -> None:
    away = outcome(instances=Unknown("no answer in 10 s"))
    lines = told([outcome(), away, away, outcome(), outcome()])
    assert lines[1] == [(True, "h1 does not answer, its instances are unknown: no answer in 10 s")]
    assert lines[2] == []
    assert lines[3] == [(False, "h1 answers again")]
    assert lines[4] == []


def test_each_reason_why_a_host_is_away_is_told_once() -> None:
    reasons = ["no answer in 10 s", "no answer in 8 s", "another key", "no answer in 10 s"]
    lines = told([outcome(instances=Unknown(reason)) for reason in reasons])
    away = [[text for _, text in each if "does not answer" in text] for each in lines]
    assert [len(each) for each in away] == [1, 0, 1, 0]
    assert lines[2] == [(True, "h1 does not answer, its instances are unknown: another key")]


def test_an_instance_that_does_not_report_is_told_once() -> None:
    silent = outcome(instances=[make_instance(1, "unreported", trouble="it left no status file")])
    lines = told([outcome(), silent, silent, outcome(), silent])
    sentence = "celery-browser@1 on h1 runs but does not report: it left no status file"
    assert [(True, sentence) in each for each in lines] == [False, True, False, False, True]


def test_actions_are_told_and_a_repeated_failure_is_not() -> None:
    started = ActionResult(Start("h1", "browser", 2))
    stopped = ActionResult(Stop("h1", "browser", 1))
    failed = ActionResult(Start("h1", "browser", 2), error="Access denied")
    lines = told(
        [
            outcome(ENOUGH, started, stopped),
            outcome(ENOUGH, failed),
            outcome(ENOUGH, failed),
            outcome(ENOUGH, started),
            outcome(ENOUGH, failed),
        ]
    )
    assert lines[0][1:] == [
        (False, "start celery-browser@2 on h1"),
        (False, "stop celery-browser@1 on h1"),
    ]
    refusal = [(True, "start celery-browser@2 on h1 failed: Access denied")]
    assert lines[1] == refusal
    assert lines[2] == []
    assert lines[3] == [(False, "start celery-browser@2 on h1")]
    assert lines[4] == refusal


def test_a_drain_is_told_when_it_begins_and_is_taken_back_and_not_each_time_it_is_renewed() -> None:
    where = ("h1", "browser", 1)
    renewed = ActionResult(Renew(*where))
    lost = ActionResult(Renew(*where), error="no answer in 10 s")
    lines = told(
        [
            outcome(ENOUGH, ActionResult(Drain(*where))),
            outcome(ENOUGH, renewed),
            outcome(ENOUGH, lost),
            outcome(ENOUGH, lost),
            outcome(ENOUGH, renewed),
            outcome(ENOUGH, ActionResult(Undrain(*where))),
        ]
    )
    assert [[sentence for _, sentence in each] for each in lines] == [
        ["browser: stay at 1 (as many as needed)", "drain celery-browser@1 on h1"],
        [],
        ["renew the drain of celery-browser@1 on h1 failed: no answer in 10 s"],
        [],
        [],
        ["undrain celery-browser@1 on h1"],
    ]


def test_a_drain_that_is_too_old_is_a_warning_said_once() -> None:
    draining = make_draining(1, active=1)
    late = replace(
        outcome(ENOUGH, instances=[draining]), overdue={draining.key: "it has 1 active task"}
    )
    lines = told([outcome(ENOUGH, instances=[draining]), late, late])
    sentence = "celery-browser@1 on h1 drains for longer than a task may take: it has 1 active task"
    assert [(True, sentence) in each for each in lines] == [False, True, False]


def test_the_status_line_counts_what_drains_apart() -> None:
    drained = outcome(ENOUGH, waiting=3, instances=[make_instance(1), make_draining(2)])
    assert status_line(drained, {"browser": 6}) == "browser 1 of 6, 1 draining, waiting 3"


def test_the_status_file_tells_how_far_a_drain_is() -> None:
    drained = outcome(ENOUGH, waiting=3, instances=[make_draining(2)])
    document = json.loads(Snapshots().text(drained, written_at=1.0))
    [instance] = document["hosts"]["h1"]["instances"]
    assert instance["state"] == "draining"
    assert instance["draining"] == {"is_idle": True, "sequence": 3, "since": NOW - 5}


def test_the_status_line_says_what_holds_it_back() -> None:
    held = outcome(HELD, waiting=Unknown("401"), hosts={"h2": Unknown("no answer")})
    assert status_line(held, {"browser": 6}) == (
        "browser 1 of 6, waiting unknown; holding: queue length unknown (401); away: h2"
    )
    assert status_line(outcome(waiting=12), {"browser": 6}) == "browser 1 of 6, waiting 12"


def test_the_status_line_names_few_of_many_hosts() -> None:
    hosts = {f"h{number}": Unknown("no answer") for number in range(1, 1000)}
    line = status_line(outcome(HELD, waiting=12, hosts=hosts), {"browser": 6})
    assert line.endswith("away: h1, h10, h100, h101, h102 and 994 others")


def test_the_status_line_says_for_how_long_it_holds() -> None:
    narrator = Narrator()
    lines = []
    for decision, at in [(HELD, 10.0), (HELD, 50.0), (ENOUGH, 52.0), (HELD, 54.0), (HELD, 56.0)]:
        seen = replace(make_observation(waiting=0), now=at)
        turn = Outcome(seen, {"browser": decision})
        list(narrator.lines(turn))
        lines.append(status_line(turn, {"browser": 6}, (), narrator.held_since))
    ends = ["unknown (401)", "unknown (401) for 40 s", "waiting 0", "(401)", "(401) for 2 s"]
    assert [line.endswith(end) for line, end in zip(lines, ends, strict=True)] == [True] * 5


def test_an_instance_is_named_as_systemd_does() -> None:
    assert make_instance(3).name == "celery-browser@3 on h1"


def test_an_instance_that_does_not_report_is_named_once_with_the_reason() -> None:
    silent = make_instance(2, "unreported", trouble="its status file is 30 s old")
    lines = told([outcome(instances=[silent]), outcome(instances=[silent]), outcome()])
    sentence = (
        f"celery-browser@2 on {silent.host} runs but does not report: its status file is 30 s old"
    )
    assert (True, sentence) in lines[0]
    assert lines[1] == []
    assert lines[2] == []


def test_an_instance_that_is_cut_off_from_its_broker_is_named_once() -> None:
    trouble = "its host does not reach the primary broker, which answers the scaler"
    cut_off = outcome(instances=[make_instance(2, "paused", trouble=trouble, cut_off=True)])
    paused = outcome(instances=[make_instance(2, "paused", trouble="paused: memory 92 %")])
    lines = told([outcome(), cut_off, cut_off, paused, cut_off])
    sentence = f"celery-browser@2 on h1 takes no tasks: {trouble}"
    assert [(True, sentence) in each for each in lines] == [False, True, False, False, True]
    assert lines[3] == []


def with_brokers(down_for_s: float | None, *, confirmed: bool = False) -> Outcome:
    """The primary is down for so long, the fallback answers."""
    made = outcome()
    reason = "" if down_for_s is None else "Connection refused"
    observation = replace(
        made.observation,
        brokers={
            "primary": BrokerCondition(down_for_s, reason),
            "fallback": BrokerCondition(),
        },
        confirmed_down=frozenset({"primary"} if confirmed else ()),
    )
    return replace(made, observation=observation)


def test_that_a_broker_is_down_is_told_once_each_time() -> None:
    away, down = with_brokers(8.0), with_brokers(30.0, confirmed=True)
    later = with_brokers(60.0, confirmed=True)
    lines = told([with_brokers(None), away, down, later, with_brokers(None), down])
    sentence = "the primary broker is down: Connection refused; its pools give way"
    assert [(True, sentence) in each for each in lines] == [False, False, True, False, False, True]


def test_a_pool_that_gives_way_is_told_once_however_long_it_lasts() -> None:
    held = [
        outcome(Decision("browser", Direction.HOLD, 1, 1, 1, Cause.BROKER_DOWN, f"down for {s} s"))
        for s in (30, 32, 34)
    ]
    assert told(held) == [[(True, "browser: stay at 1 (down for 30 s)")], [], []]
    assert status_line(held[2], {"browser": 6}).endswith("; down for 34 s")


def document(*outcomes: Outcome) -> dict[str, Any]:
    """status.json after these turns."""
    snapshots = Snapshots()
    texts = [snapshots.text(each, written_at=1.5) for each in outcomes]
    shown: dict[str, Any] = json.loads(texts[-1])
    return shown


def test_the_snapshot_is_plain_json() -> None:
    full = outcome(
        UP, waiting=120, instances=make_instances(busy=1), hosts={"h2": Unknown("no answer")}
    )
    shown = document(full)
    assert shown["pools"]["browser"]["waiting"] == 120
    assert shown["pools"]["browser"]["reason"] == "120 waiting"
    assert shown["hosts"]["h1"]["instances"][0]["state"] == "busy"
    assert shown["hosts"]["h2"] == {"answers": False, "reason": "no answer", "instances": []}
    unknown = document(outcome(HELD, waiting=Unknown("401")))
    assert unknown["pools"]["browser"]["waiting"] is None


def test_the_snapshot_has_the_orders() -> None:
    drain = Order(OrderKind.DRAIN, "root", 0.0, host="h1")
    text = Snapshots().text(outcome(HELD), orders=[drain], written_at=1.0)
    [shown] = json.loads(text)["orders"]
    assert (shown["kind"], shown["host"]) == ("drain", "h1")
    assert shown["text"] == str(drain)


def test_the_snapshot_has_the_brokers() -> None:
    shown = document(with_brokers(42.0, confirmed=True))
    assert shown["version"] == 1
    assert shown["brokers"] == {
        "primary": {
            "answers": False,
            "gives_way": True,
            "down_for_s": 42.0,
            "reason": "Connection refused",
        },
        "fallback": {"answers": True, "gives_way": False, "down_for_s": None, "reason": ""},
    }


def test_the_snapshot_follows_what_changes_of_a_host() -> None:
    same = HostReport(make_instances(idle=1))
    before = outcome(instances=make_instances(busy=1), hosts={"h2": same, "h3": same})
    changed = replace(make_instance(1, "busy"), tasks_ended=7)
    after = outcome(instances=[changed], hosts={"h2": same, "h4": Unknown("no answer")})
    shown = document(before, after)
    assert shown == document(after)
    assert shown["hosts"]["h1"]["instances"][0]["tasks_ended"] == 7
    assert shown["hosts"].keys() == {"h1", "h2", "h4"}


def test_a_dry_run_says_once_what_it_would_do() -> None:
    narrator = Narrator(dry_run=True)

    def acted(*actions: Start | Stop) -> list[str]:
        made = replace(outcome(HELD), results=tuple(map(ActionResult, actions)))
        return [line for _, line in narrator.lines(made) if "would" in line]

    start, stop = Start("h1", "browser", 3), Stop("h1", "browser", 4)
    assert acted(start) == ["would start celery-browser@3 on h1"]
    assert acted(start, stop) == ["would stop celery-browser@4 on h1"]
    assert acted(stop) == []
    assert acted(start) == ["would start celery-browser@3 on h1"]


def test_the_status_line_names_what_holds_by_order() -> None:
    orders = [
        Order(OrderKind.PAUSE_IN, "anna", 0.0, 3600.0),
        Order(OrderKind.PIN, "anna", 0.0, host="h1", pool="browser", number=3),
    ]
    line = status_line(outcome(HELD), {"browser": 6}, orders)
    assert line.endswith("; scaling in is paused by anna until 1970-01-01 01:00 UTC")

"""The decisions' file: what is worth a line, what a line tells, and how the file is kept."""

from __future__ import annotations

import errno
import gzip
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from swarm.scaler import policy
from swarm.scaler.adapters import decision_log
from swarm.scaler.adapters.decision_log import DecisionLog
from swarm.scaler.decisions import Recorder, parse
from swarm.scaler.limits import Orders, Override, effective
from swarm.scaler.model import (
    ActionResult,
    Decision,
    Inputs,
    Outcome,
    PoolMemory,
    Start,
    Stop,
    Unknown,
)
from tests.builders import AT, NOW, make_observation, make_pool, make_scaler

BUSY = Inputs(NOW, 12, busy=2, active=2, starting=1, fresh=1, service_time_s=2.5)
HELD = Override("set by anna until 12:30", minimum=4, maximum=4, spare=0)


def decided(inputs: Inputs, *overrides: Override) -> Decision:
    limits = effective(make_pool(), AT, overrides)
    decision, _ = policy.decide(
        "browser", make_pool(), make_scaler(), inputs, limits, PoolMemory(fresh_turns=9)
    )
    return decision


class Recording:
    """A recorder, and a clock for it."""

    def __init__(self) -> None:
        self.recorder = Recorder(make_scaler())

    def turn(
        self,
        after_s: float,
        inputs: Inputs = BUSY,
        *results: ActionResult,
        orders: Orders | None = None,
    ) -> str | None:
        orders = orders or Orders()
        inputs = replace(inputs, now=NOW + after_s)
        decision = decided(inputs, *orders.overrides.get("browser", ()))
        outcome = Outcome(make_observation(0), {"browser": decision}, results)
        return self.recorder.line(outcome, orders, AT + timedelta(seconds=after_s))


@pytest.mark.parametrize(
    "inputs",
    [
        BUSY,
        Inputs(NOW, Unknown("401"), away=("h1", "h2"), unseen=3),
        Inputs(NOW, 0, down="primary is down for 42 s: refused", idle=3, drainable=2, drained=1),
    ],
)
def test_what_is_written_is_enough_to_decide_anew(inputs: Inputs) -> None:
    orders = Orders({"browser": (HELD,)})
    line = Recording().turn(0, inputs, orders=orders)
    assert line is not None
    assert "\n" not in line
    record = parse(line)
    assert record.at == AT.timestamp()
    assert record.scale_up_period_s == 10.0
    told = record.pools["browser"]
    assert told.inputs == replace(inputs, now=AT.timestamp())
    assert told.overrides == (HELD,)
    decision = decided(inputs, HELD)
    assert told.decision("browser") == replace(decision, basis=None)


def test_actions_are_told_with_their_errors() -> None:
    started = ActionResult(Start("h1", "browser", 3))
    stopped = ActionResult(Stop("h2", "browser", 4), error="Access denied")
    line = Recording().turn(0, BUSY, started, stopped)
    assert json.loads(line or "")["actions"] == [
        {"start": ["h1", "browser", 3]},
        {"stop": ["h2", "browser", 4], "error": "Access denied"},
    ]


def test_a_turn_without_news_is_no_line() -> None:
    recording = Recording()
    assert recording.turn(0) is not None
    told = [after for after in range(2, 122, 2) if recording.turn(after) is not None]
    assert told == [60, 120], "at least every minute"


def test_figures_that_change_all_the_time_are_told_every_ten_seconds() -> None:
    recording = Recording()
    lines = [
        recording.turn(after, replace(BUSY, starting=0, waiting=0, ended=after))
        for after in range(0, 60, 2)
    ]
    assert [2 * number for number, line in enumerate(lines) if line] == [0, 10, 20, 30, 40, 50]


def test_a_need_that_changes_is_told_at_once_because_its_spells_count() -> None:
    recording = Recording()
    recording.turn(0)
    assert recording.turn(2, replace(BUSY, waiting=13)) is not None
    assert recording.turn(4, replace(BUSY, waiting=13)) is None


def test_another_decision_or_an_action_is_told_at_once() -> None:
    recording = Recording()
    recording.turn(0)
    assert recording.turn(2, replace(BUSY, busy=3)) is not None
    assert recording.turn(4, replace(BUSY, busy=3)) is None
    result = ActionResult(Stop("h1", "browser", 4))
    assert recording.turn(6, replace(BUSY, busy=3), result) is not None


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:-20],
        lambda line: line.replace('"version":1', '"version":2'),
        lambda line: line.replace('"busy":2', '"busy":"many"'),
        lambda line: line.replace('"at":', '"when":'),
        lambda line: line.replace('"cause":"', '"cause":"x'),
        lambda _: "[]",
        lambda _: "",
    ],
)
def test_what_is_no_line_is_not_taken_for_one(change: Callable[[str], str]) -> None:
    line = Recording().turn(0)
    assert line is not None
    parse(line)
    with pytest.raises(ValueError, match=r"."):
        parse(change(line))


class File:
    """A decision log in a directory of its own, cut at 1,000 bytes."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "decisions.jsonl"
        self.now = 0.0
        self.opened: list[DecisionLog] = []
        self.log = self.open()

    def open(self) -> DecisionLog:
        log = DecisionLog(self.path, file_bytes=1000, files_kept=3, monotonic=lambda: self.now)

        self.opened.append(log)
        return log

    def lines(self) -> list[str]:
        """Of all files, the oldest first."""
        old = sorted(self.path.parent.glob("decisions.jsonl.*.gz"), reverse=True)
        texts = [gzip.decompress(each.read_bytes()).decode() for each in old]
        text = "".join([*texts, self.path.read_text() if self.path.exists() else ""])
        return [line for line in text.split("\n") if line]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[File]:
    file = File(tmp_path)
    yield file
    for log in file.opened:
        log.close()


def test_the_file_is_cut_and_no_line_is_lost_or_torn(file: File) -> None:
    lines = [f"{number:03} {'x' * 90}" for number in range(25)]
    for line in lines:
        file.log.append(line)
    assert file.lines() == lines
    assert file.path.stat().st_size <= 1000
    assert not list(file.path.parent.glob("*.tmp"))


def test_the_oldest_are_given_up(file: File) -> None:
    for number in range(100):
        file.log.append(f"{number:03} {'x' * 90}")
    assert len(list(file.path.parent.iterdir())) == 4
    assert file.lines()[-1].startswith("099")


def test_half_a_line_spoils_no_other(file: File) -> None:
    file.log.append("one")
    file.log.close()
    with file.path.open("a") as torn:
        torn.write("tw")
    file.open().append("three")
    assert file.lines() == ["one", "tw", "three"]


def test_a_full_disk_is_told_once_and_tried_again(
    file: File, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tried = 0

    def full(*_: object) -> None:
        nonlocal tried
        tried += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    file.log.append("one")
    with monkeypatch.context() as patched:
        patched.setattr(decision_log._Handler, "flush", full)
        for _ in range(100):
            file.log.append("lost")
            file.now += 2
    assert tried <= 2 * (200 / 60 + 1)
    assert caplog.text.count("No space left on device") == 1
    file.now += 60
    file.log.append("two")
    assert [line for line in file.lines() if line != "lost"] == ["one", "two"]
    assert caplog.text.count("is written again") == 1


def test_a_cut_that_fails_moves_no_older_file(
    file: File, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    lines = [f"{number:03} {'x' * 90}" for number in range(18)]
    for line in lines:
        file.log.append(line)
    before = {path.name for path in file.path.parent.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(decision_log.shutil, "copyfileobj", full)  # type: ignore[attr-defined]
        for _ in range(10):
            file.now += 61
            file.log.append("x" * 900)
    assert {path.name for path in file.path.parent.glob("*[!p]")} == before
    file.now += 61
    file.log.append("last")
    assert [line for line in file.lines() if "xxx " not in line] == [*lines, "last"]
    assert caplog.text.count("No space left") == 1


@pytest.mark.parametrize("hindrance", ["a directory", "no directory"])
def test_a_file_that_cannot_be_opened_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hindrance: str
) -> None:
    file = File(tmp_path / "absent" if hindrance == "no directory" else tmp_path)
    if hindrance == "a directory":
        file.path.mkdir()
    for _ in range(5):
        file.now += 61
        file.log.append("one")
    assert caplog.text.count("decisions are not recorded") == 1


def test_a_month_of_a_hundred_pools_at_rest_fits() -> None:
    """What the constants of the file are chosen by."""
    idle = Inputs(NOW, 0, idle=3, drainable=0, service_time_s=2.4183, boot_time_s=1.92, ended=91234)
    one = json.loads(Recording().turn(0, idle) or "")
    hundred = {**one, "pools": {f"pool-{n}": one["pools"]["browser"] for n in range(100)}}
    per_month = len(json.dumps(hundred, separators=(",", ":"))) * 43_200
    assert per_month < decision_log.FILE_BYTES * decision_log.FILES_KEPT

"""Operators' orders: what they say, how they are kept, when they end."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from swarm.scaler.adapters.order_book import OrderBook
from swarm.scaler.limits import Orders
from swarm.scaler.orders import Order, OrderKind, in_force
from tests.builders import make_settings

#: 2026-03-01 12:00 UTC.
NOON = 1772366400.0


@dataclass
class Clocks:
    """A wall clock that may be set, and one that only goes on."""

    wall: float = NOON
    monotonic: float = 5000.0

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def book(self, directory: Path) -> OrderBook:
        return OrderBook(
            directory / "orders.json", clock=lambda: self.wall, monotonic=lambda: self.monotonic
        )


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def pause_in(for_s: float = 1800.0, *, by: str = "anna", at: float = NOON) -> Order:
    return Order(OrderKind.PAUSE_IN, by, at, at + for_s)


def hold(instances: int, pool: str = "browser") -> Order:
    return Order(OrderKind.SET, "anna", NOON, NOON + 600, pool=pool, instances=instances)


DRAIN = Order(OrderKind.DRAIN, "root", NOON, host="worker1")
PIN = Order(OrderKind.PIN, "root", NOON, host="worker1", pool="browser", number=3)
ALL = (
    pause_in(),
    Order(OrderKind.PAUSE_OUT, "anna", NOON, NOON + 60),
    hold(4),
    DRAIN,
    PIN,
)


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (ALL[0], "scaling in is paused by anna until 2026-03-01 12:30 UTC"),
        (ALL[1], "scaling out is paused by anna until 2026-03-01 12:01 UTC"),
        (hold(4), "browser is held at 4 by anna until 2026-03-01 12:10 UTC"),
        (DRAIN, "worker1 is drained by root since 2026-03-01 12:00 UTC"),
        (PIN, "celery-browser@3 on worker1 is pinned by root since 2026-03-01 12:00 UTC"),
    ],
)
def test_an_order_says_what_whose_and_until_when(order: Order, said: str) -> None:
    assert str(order) == said


@pytest.mark.parametrize("order", ALL, ids=lambda order: order.kind)
def test_an_order_is_read_as_it_was_written(order: Order) -> None:
    assert Order.from_json(json.loads(json.dumps(order.to_json()))) == order


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "dance"},
        {"kind": "drain"},
        {"pool": None},
        {"instances": -1},
        {"instances": None},
        {"host": "worker1"},
        {"by": ""},
        {"given_at": "yesterday"},
        {"given_at": float("nan")},
        {"until": float("inf")},
        {"colour": 1},
    ],
    ids=str,
)
def test_what_is_no_order_is_not_taken_for_one(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Order.from_json({**hold(4).to_json(), **change})


def test_orders_survive_a_restart(tmp_path: Path, clocks: Clocks) -> None:
    book = clocks.book(tmp_path)
    for order in ALL:
        book.give(order)
    assert book.problem is None
    clocks.monotonic = 3.0
    assert clocks.book(tmp_path).standing() == ALL


def test_a_later_order_takes_the_place_of_the_same_kind_for_the_same(
    tmp_path: Path, clocks: Clocks
) -> None:
    book = clocks.book(tmp_path)
    for order in (hold(4), hold(2, "analysis"), hold(5)):
        book.give(order)
    assert book.standing() == (hold(2, "analysis"), hold(5))


def test_an_order_ends_by_itself_and_is_told(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    book = clocks.book(tmp_path)
    book.give(pause_in(1800))
    book.give(DRAIN)
    clocks.advance(1799)
    assert len(book.standing()) == 2
    clocks.advance(1)
    assert book.standing() == (DRAIN,)
    assert caplog.text.count("ended: scaling in is paused by anna") == 1
    assert clocks.book(tmp_path).standing() == (DRAIN,)


def test_what_ended_while_no_scaler_ran_does_not_hold(tmp_path: Path, clocks: Clocks) -> None:
    clocks.book(tmp_path).give(pause_in(1800))
    clocks.advance(1801)
    assert clocks.book(tmp_path).standing() == ()


@pytest.mark.parametrize("step_s", [-86400.0, -10.0, 10.0, 86400.0])
def test_an_order_lasts_as_long_as_it_was_given_for_whatever_the_clock_does(
    tmp_path: Path, clocks: Clocks, step_s: float
) -> None:
    book = clocks.book(tmp_path)
    book.give(pause_in(1800))
    clocks.advance(600)
    clocks.wall += step_s
    [order] = book.standing()
    assert order.until == NOON + 1800 + step_s
    clocks.advance(1199)
    assert len(book.standing()) == 1
    # The file knows of the step as well.
    assert len(clocks.book(tmp_path).standing()) == 1
    clocks.advance(1)
    assert book.standing() == ()


def test_a_clock_that_is_set_back_while_no_scaler_runs_makes_no_order_longer(
    tmp_path: Path, clocks: Clocks
) -> None:
    clocks.book(tmp_path).give(pause_in(1800))
    clocks.wall -= 86400
    book = clocks.book(tmp_path)
    clocks.advance(1799)
    assert len(book.standing()) == 1
    clocks.advance(1)
    assert book.standing() == ()


def test_withdrawing_tells_what_held(tmp_path: Path, clocks: Clocks) -> None:
    book = clocks.book(tmp_path)
    book.give(DRAIN)
    assert book.withdraw(DRAIN.key, PIN.key) == (DRAIN,)
    assert book.withdraw(DRAIN.key) == ()
    assert clocks.book(tmp_path).standing() == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"version": 1}',
        '{"version": 2, "orders": []}',
        '{"version": 1, "orders": 7}',
        "[" * 100_000,
        "\0" * 50,
    ],
    ids=lambda text: text[:30],
)
def test_a_file_that_is_not_understood_is_told_once_and_kept(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / "orders.json").write_text(text)
    book = clocks.book(tmp_path)
    for _ in range(5):
        assert book.standing() == ()
    assert caplog.text.count("are not understood do not hold any more") == 1
    [aside] = tmp_path.glob("orders.bad-*.json")
    assert aside.read_text() == text
    book.give(DRAIN)
    assert clocks.book(tmp_path).standing() == (DRAIN,)
    assert aside.read_text() == text


def test_one_wrong_order_takes_no_other_with_it(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = {**hold(4).to_json(), "instances": "many"}
    document = {"version": 1, "orders": [DRAIN.to_json(), wrong, PIN.to_json()]}
    (tmp_path / "orders.json").write_text(json.dumps(document))
    assert clocks.book(tmp_path).standing() == (DRAIN, PIN)
    assert "wrong instances" in caplog.text
    [aside] = tmp_path.glob("orders.bad-*.json")
    assert json.loads(aside.read_text()) == document
    assert clocks.book(tmp_path).standing() == (DRAIN, PIN)


def test_a_full_disk_is_told_once_and_written_as_soon_as_it_can_be(
    tmp_path: Path,
    clocks: Clocks,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    book = clocks.book(tmp_path)
    book.give(DRAIN)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        book.give(PIN)
        for _ in range(5):
            assert book.standing() == (DRAIN, PIN)
        assert book.problem == f"{tmp_path}/orders.json not written (No space left on device)"
        assert caplog.text.count("No space left on device") == 1
        # What was there is there.
        assert clocks.book(tmp_path).standing() == (DRAIN,)
    book.standing()
    assert str(book.problem) == "None"
    assert clocks.book(tmp_path).standing() == (DRAIN, PIN)


def test_a_file_that_cannot_be_read_is_not_written_over(
    tmp_path: Path, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "orders.json"
    path.mkdir()
    book = clocks.book(tmp_path)
    book.give(DRAIN)
    assert book.standing() == (DRAIN,)
    assert caplog.text.count("cannot be read (Is a directory)") == 1
    assert book.problem is not None
    assert path.is_dir()


def test_a_file_that_cannot_be_kept_aside_is_not_written_over(
    tmp_path: Path,
    clocks: Clocks,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    path = tmp_path / "orders.json"
    path.write_text("{")
    monkeypatch.setattr(Path, "rename", refuse)
    book = clocks.book(tmp_path)
    book.give(DRAIN)
    assert book.standing() == (DRAIN,)
    assert path.read_text() == "{"
    assert book.problem is not None
    assert "cannot be kept aside (Read-only file system)" in caplog.text


def test_orders_come_to_limits_pins_and_drained_hosts() -> None:
    at_host = make_settings(hosts={"worker1": {"address": "local", "max_instances": 4}})
    came = in_force(ALL, at_host)
    assert came.pinned == {("worker1", "browser", 3)}
    assert came.drained == {"worker1"}
    pause_in_, pause_out, held = came.overrides["browser"]
    assert (pause_in_.no_stops, pause_in_.no_starts) == (True, False)
    assert (pause_out.no_stops, pause_out.no_starts) == (False, True)
    assert (held.minimum, held.maximum, held.spare) == (4, 4, 0)
    assert held.set_by == "set by anna until 2026-03-01 12:10 UTC"
    assert len(came.overrides["analysis"]) == 2


def test_a_number_never_exceeds_what_config_yaml_says_now() -> None:
    [held] = in_force([hold(40)], make_settings()).overrides["browser"]
    assert (held.minimum, held.maximum) == (6, 6)


def test_orders_for_what_config_yaml_no_longer_has_are_of_no_effect() -> None:
    assert in_force([hold(4, "gone"), DRAIN], make_settings()) == Orders()

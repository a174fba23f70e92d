"""Every hostile page ends in time and with the right code, and harms nobody else.

Rows that may run beside others do so four at a time on one browser, as tasks of a threads worker,
with ordinary jobs in between; those that must be alone have one neighbour.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from tests.hostile.conftest import Desk, Outcome
from tests.hostile.corpus import CORPUS, Row
from tests.loopback import wait_until

BESIDE = [row for row in CORPUS if not row.alone]
ALONE = [row for row in CORPUS if row.alone]
#: Ordinary jobs that run while the rows do, one after the other.
_GRACE_S = 2.0
#: Chromium's own processes beside one renderer for each page, and those that it keeps spare.
_PROCESSES_AT_REST = 12


class Together:
    """What became of the rows that ran together, and of the ordinary jobs meanwhile."""

    def __init__(self, desk: Desk) -> None:
        self._pool = ThreadPoolExecutor(4)
        self._beside = ThreadPoolExecutor(1)
        self._stopping = False
        self._neighbours = self._beside.submit(self._run_neighbours, desk)
        self.outcomes: dict[str, Future[Outcome]] = {
            row.name: self._pool.submit(desk.run_row, row) for row in BESIDE
        }

    def _run_neighbours(self, desk: Desk) -> list[Outcome]:
        ends = []
        while not self._stopping:
            ends.append(desk.run_ordinary(ms=500))
        return ends

    def neighbours(self) -> list[Outcome]:
        """Once all rows are through."""
        self._pool.shutdown()
        self._stopping = True
        return self._neighbours.result()


@pytest.fixture(scope="module")
def together(desk: Desk) -> Iterator[Together]:
    together = Together(desk)
    yield together
    together.neighbours()


def check(row: Row, outcome: Outcome) -> None:
    assert outcome.end in row.codes, outcome
    assert outcome.seconds <= row.deadline_s + _GRACE_S
    # Redis holds it.
    assert len(str(outcome.result)) < 300_000


@pytest.mark.parametrize("row", BESIDE, ids=lambda row: row.name)
def test_a_hostile_page_ends_in_time_with_its_code(together: Together, row: Row) -> None:
    check(row, together.outcomes[row.name].result(timeout=110))


def test_neighbours_of_hostile_pages_are_done(together: Together, desk: Desk) -> None:
    outcomes = together.neighbours()
    assert len(outcomes) > 5
    assert {outcome.end for outcome in outcomes} == {"ok"}
    # And none of them had to be done twice: a browser that is retired finishes what it has.
    assert [event for event in desk.events if event[0] in {"lost", "killed"}] == []


@pytest.mark.parametrize("row", ALONE, ids=lambda row: row.name)
def test_a_greedy_page_ends_in_time_with_its_code(desk: Desk, row: Row) -> None:
    with ThreadPoolExecutor(1) as beside:
        neighbour = beside.submit(desk.run_ordinary, 2000)
        check(row, desk.run_row(row))
        assert desk.run_ordinary().end == "ok"
        assert neighbour.result().end == "ok"


def test_no_page_saw_the_host_or_was_seen_by_a_server_it_distrusts(
    together: Together, desk: Desk
) -> None:
    for name in ("places", "inner-places"):
        assert "root:x:" not in str(together.outcomes[name].result().result)
    seen = str(together.outcomes["webrtc"].result().result["data"])
    assert re.search(r"\b\d{1,3}(\.\d{1,3}){3}\b|[0-9a-f]*::[0-9a-f:]+", seen) is None, seen
    asked = desk.site.asked()
    assert "datagram" not in asked
    assert [path for path in asked if "?over=" in path] == []


def test_nothing_is_left_of_hostile_pages(desk: Desk) -> None:
    directory = Path(os.environ["TMPDIR"])
    wait_until(lambda: list(directory.glob("visit-*")) == [], what="recordings gone")
    wait_until(lambda: list((directory / "downloads").iterdir()) == [], what="downloads gone")

    def at_rest() -> bool:
        return len(psutil.Process().children(recursive=True)) <= _PROCESSES_AT_REST

    wait_until(at_rest, what="the pages' processes to end")
    assert desk.run_ordinary().end == "ok"

"""A host that says anything at all: a turn goes on, nothing is stopped, no limit is exceeded.

What a host tells comes from `swarm-unitctl` there, and what it tells of an instance from a file
that the user may write who runs the tasks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client import generate_latest

from swarm.scaler.adapters.metrics import ScalerMetrics
from swarm.scaler.adapters.picture import Picture
from swarm.scaler.adapters.systemd import MALFORMED
from swarm.scaler.decisions import Recorder
from swarm.scaler.limits import Orders
from swarm.scaler.model import Drain, DrainReading, HostReport, Start, Stop
from swarm.scaler.ports import BrokerSide, CommandError
from swarm.scaler.reconcile import Reconciler
from swarm.scaler.snapshot import Snapshots
from swarm.scaler.story import Narrator, status_line
from tests.builders import AT, NOW, make_settings
from tests.fakes import FakeQueues, FakeView
from tests.host_lines import entry, line

VALUES: list[Any] = [
    *(0, -1, 1.5, 7, 2**31, 2**63, 10**400, 5e-324, 1e308),
    *(float("nan"), float("inf"), float("-inf"), True, None, [], {}, [[]], {"a": 1}),
    *("", "7", "x", "a\nb", "\x1b[2J", "x" * 3000, "../../etc/passwd", "celery", "é"),
]
#: Words of an instance that is idle, has a task, or drains.
WORDS: dict[str, dict[str, Any]] = {
    "idle": {"broker": "away"},
    "busy": {"active": 1},
    "drained": {"drain": {"state": "idle", "sequence": 3, "since": 90.0}},
}


class Told:
    """A `UnitManager` of a host that tells what it was given, and takes what it is asked."""

    def __init__(self, report: HostReport) -> None:
        self.told = report
        self.asked: list[Start | Stop | Drain] = []

    async def report(self) -> HostReport:
        return self.told

    async def start(self, pool: str, number: int) -> None:
        self.asked.append(Start("h1", pool, number))

    async def stop(self, pool: str, number: int, proved: DrainReading) -> None:
        self.asked.append(Stop("h1", pool, number))

    async def drain(self, pool: str, number: int) -> DrainReading:
        self.asked.append(Drain("h1", pool, number))
        raise CommandError("\x1b[2J no answer\nthat is understood" * 100)

    async def undrain(self, pool: str, number: int) -> None:
        pass


def pictures(wrong: bytes) -> Iterator[HostReport]:
    """What is believed of a host that tells this, among what is right; nothing, mostly."""
    picture = Picture("h1", report_max_age_s=15)
    right = [entry(1, word={"broker": "away"}), entry(2, word={"active": 1})]
    picture.tell(line(instances=right), at=NOW)
    try:
        picture.tell(wrong, at=NOW + 1)
    except MALFORMED:
        return
    assert picture.report is not None
    yield picture.report


async def check(report: HostReport, what: str) -> None:
    """Turns with much work, and then with none, all that is told of them included."""
    settings = make_settings(hosts={"h1": {"address": "local", "max_instances": 4}})
    queues, host = FakeQueues({"browser": 50, "analysis": 3}), Told(report)
    side = BrokerSide(queues, FakeView(queues))
    reconciler = Reconciler(settings, {"primary": side}, {"h1": host})
    metrics, snapshots, narrator = ScalerMetrics(settings), Snapshots(), Narrator()
    recorder = Recorder(settings.scaler)
    for turn in range(6):
        if turn == 3:
            queues.lengths = {"browser": 0, "analysis": 0}
        outcome = await reconciler.turn(NOW + 2 + 2 * turn, at=AT)
        metrics.show(outcome)
        generate_latest(metrics.registry)
        snapshots.text(outcome, written_at=1.0)
        recorder.line(outcome, Orders(), AT)
        sentences = [sentence for _, sentence in narrator.lines(outcome)]
        sentences.append(status_line(outcome, {"browser": 6, "analysis": 2}, ()))
        for sentence in sentences:
            assert sentence.isprintable(), (what, sentence)
            assert len(sentence) < 2000, (what, len(sentence))
        starts = [result.action for result in outcome.results if type(result.action) is Start]
        assert len(starts) <= 4, what
    assert not [each for each in host.asked if isinstance(each, Stop)], what
    assert all(1 <= each.number <= 99 for each in host.asked), what
    assert {each.pool for each in host.asked} <= {"browser", "analysis"}, what


@pytest.mark.parametrize(
    "field",
    [
        *("memory_available_mb", "memory_pressure", "cpu_pressure", "now", "look", "gone"),
        *("instances", "sequence", "version"),
    ],
)
async def test_whatever_a_host_says_of_itself_is_survived(field: str) -> None:
    for value in VALUES:
        document = {**json.loads(line(1, now=101.0)), field: value}
        for report in pictures(json.dumps(document).encode()):
            await check(report, f"{field}: {value!r:.60}")


@pytest.mark.parametrize("field", entry())
async def test_whatever_a_host_says_of_a_unit_is_survived(field: str) -> None:
    for value in VALUES:
        wrong = {**entry(1, word=WORDS["idle"]), field: value}
        for report in pictures(line(1, now=101.0, instances=[wrong])):
            await check(report, f"{field}: {value!r:.60}")


@pytest.mark.parametrize("state", WORDS)
@pytest.mark.parametrize("field", entry()["status"])
async def test_whatever_an_instance_says_of_itself_is_survived(field: str, state: str) -> None:
    for value in VALUES:
        wrong = entry(1, word=WORDS[state])
        wrong["status"][field] = value
        for report in pictures(line(1, now=101.0, instances=[wrong])):
            await check(report, f"{field}: {value!r:.60}")


@pytest.mark.parametrize("pool", ["other", "celery", "browser-fallback"])
async def test_units_of_pools_that_nobody_configured_are_left_alone(pool: str) -> None:
    others = [entry(number, pool=pool) for number in range(1, 4)]
    for report in pictures(line(1, now=101.0, instances=others)):
        assert len(report.instances) == 5
        await check(report, pool)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pool": "browser@1 browser"},
        {"pool": "../browser"},
        {"pool": "Browser"},
        {"pool": "b" * 33},
        {"number": 0},
        {"number": 100},
        {"number": -1},
        {"number": 1.0},
        {"number": "1\n"},
        {"number": True},
    ],
    ids=str,
)
def test_what_no_unit_can_be_called_is_not_believed(wrong: dict[str, Any]) -> None:
    assert not list(pictures(line(1, now=101.0, instances=[{**entry(1), **wrong}])))


@pytest.mark.parametrize("memory_mb", ["4096", 4096.0, -1, True, [], 10**400, float("nan")])
def test_an_amount_of_memory_that_is_none_is_not_believed(memory_mb: object) -> None:
    assert not list(pictures(line(1, now=101.0, memory_available_mb=memory_mb)))


@pytest.mark.parametrize(
    "word",
    [
        {"capacity": 65},
        {"capacity": 10**400},
        {"done": 10**13},
        {"active": 10**400},
        {"requests": 10**400},
        {"written_at": 1e11},
        {"service_time_s": 1e11},
    ],
    ids=lambda word: next(iter(word)),
)
def test_a_figure_that_no_instance_can_have_makes_its_word_none(word: dict[str, Any]) -> None:
    [report] = pictures(line(1, now=101.0, instances=[entry(1, word=word)]))
    assert report.instances[0].state == "unreported"
    assert "is not understood: status with wrong" in (report.instances[0].trouble or "")

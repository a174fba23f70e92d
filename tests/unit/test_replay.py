"""A replay decides as the scaler did, and differs where another config.yaml would have."""

from __future__ import annotations

import asyncio
import gzip
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from swarm.replay_cli import replay
from swarm.scaler.decisions import Recorder, TurnRecord, parse
from swarm.scaler.limits import Orders, Override
from swarm.scaler.model import Direction, Inputs, InstanceState
from swarm.scaler.ports import BrokerSide
from swarm.scaler.reconcile import Reconciler
from swarm.scaler.replay import Replay, with_extra
from swarm.settings import Settings
from tests.builders import AT, BROWSER, make_settings
from tests.fakes import FakeQueues, FakeUnits, FakeView


def settings(*, scaler: dict[str, Any] | None = None, **pool: Any) -> Settings:
    return make_settings(
        pools={"browser": {**BROWSER, "max_instances": 20, **pool}},
        hosts={"h1": {"address": "local", "max_instances": 30}},
        scaler={
            "stabilisation_s": 20.0,
            "host_starts_at_once": 30,
            **(scaler or {}),
        },
    )


class Recorded:
    """What the real reconciler does with a queue over fakes, as its lines."""

    def __init__(self, own: Settings, orders: Orders | None = None) -> None:
        self.settings, self.orders = own, orders or Orders()
        self.now = 1000.0
        self.queues = FakeQueues({"browser": 0})
        self.units = FakeUnits("h1", clock=lambda: self.now)
        side = BrokerSide(self.queues, FakeView(self.queues))
        self.reconciler = Reconciler(own, {"primary": side}, {"h1": self.units})
        self.recorder = Recorder(own.scaler)
        self.lines: list[str] = []
        self.starts = self.stops = 0

    async def turns(self, count: int, waiting: int, *, busy: int) -> None:
        """So many instances have a task, and each ends one in four seconds; others have none."""
        self.queues.lengths["browser"] = waiting
        for _ in range(count):
            self.now += 2
            at = AT + timedelta(seconds=self.now)
            for n, key in enumerate(sorted(self.units.instances)):
                state = InstanceState.BUSY if n < busy else InstanceState.IDLE
                known = self.units.instances[key]
                if n < busy and self.now % 4 == 0:
                    known = replace(known, tasks_ended=known.tasks_ended + 1)
                    self.units.instances[key] = known
                if known.state is not state:
                    idle_since = self.now if state is InstanceState.IDLE else None
                    self.units.instances[key] = replace(
                        known,
                        state=state,
                        active=int(n < busy),
                        idle_since=idle_since,
                        state_since=self.now,
                    )
            outcome = await self.reconciler.turn(self.now, at=at, orders=self.orders)
            self.starts += sum(a.result_is_start for a in map(_Act, outcome.results))
            self.stops += sum(not a.result_is_start for a in map(_Act, outcome.results))
            line = self.recorder.line(outcome, self.orders, at)
            if line is not None:
                self.lines.append(line)

    @property
    def records(self) -> list[TurnRecord]:
        return [parse(line) for line in self.lines]


class _Act:
    def __init__(self, result: Any) -> None:
        self.result_is_start = type(result.action).__name__ == "Start"


async def burst(own: Settings, orders: Orders | None = None) -> Recorded:
    """At rest, 60 tasks at once, at rest again."""
    recorded = Recorded(own, orders)
    await recorded.turns(40, 0, busy=0)
    await recorded.turns(20, 60, busy=99)
    await recorded.turns(60, 0, busy=0)
    return recorded


def test_the_same_configuration_decides_the_same() -> None:
    recorded = asyncio.run(burst(settings(min_instances=1)))
    done = Replay(recorded.settings)
    assert list(done.differences(recorded.records)) == []
    pool = done.pools["browser"]
    assert (pool.then.starts, pool.then.stops) == (pool.now.starts, pool.now.stops)
    # The first start was in the warm-up.
    assert pool.then.starts == recorded.starts - 1
    assert pool.then.stops == recorded.stops > 0
    assert pool.then.instance_s == pool.now.instance_s > 0
    assert pool.warm_up > 0
    [caveat] = done.caveats()
    assert caveat.startswith("What this cannot know: ")


def test_tasks_end_at_the_pace_of_then() -> None:
    # More than there is room for is wanted, so that the number depends on how many tasks end.
    recorded = asyncio.run(burst(settings(max_instances=200)))
    assert any(record.pools["browser"].pace > 0 for record in recorded.records)
    # Every second line is missing: how long each number was needed is not known so well, and what
    # is worth keeping differs. What is needed does not.
    found = Replay(recorded.settings).differences(recorded.records[::2])
    assert [each for each in found if each.then.direction is Direction.UP] == []


def test_the_same_orders_hold() -> None:
    orders = Orders({"browser": (Override("set by anna", minimum=3, maximum=3, spare=0),)})
    recorded = asyncio.run(burst(settings(), orders))
    done = Replay(recorded.settings)
    assert list(done.differences(recorded.records)) == []


@pytest.mark.parametrize(
    ("change", "figure"),
    [
        ({"max_instances": 5}, "starts"),
        ({"min_instances": 4}, "instance_s"),
        ({"spare": 3}, "instance_s"),
        ({"scaler": {"target_wait_s": 30.0}}, "starts"),
    ],
)
def test_another_configuration_differs_where_it_should(change: dict[str, Any], figure: str) -> None:
    recorded = asyncio.run(burst(settings()))
    done = Replay(settings(**change))
    differences = list(done.differences(recorded.records))
    assert differences
    pool = done.pools["browser"]
    grows = figure == "instance_s"
    then, now = getattr(pool.then, figure), getattr(pool.now, figure)
    assert now > then if grows else now < then


def test_what_the_new_one_has_started_is_not_started_again() -> None:
    recorded = asyncio.run(burst(settings()))
    done = Replay(settings(min_instances=4))
    list(done.differences(recorded.records))
    pool = done.pools["browser"]
    assert pool.now.starts - pool.now.stops <= 4


def test_a_gap_begins_anew() -> None:
    recorded = asyncio.run(burst(settings()))
    first, *others = recorded.records
    gap = [replace(each, at=each.at + 3600) for each in others]
    done = Replay(recorded.settings)
    list(done.differences([first, *gap]))
    assert done.pools["browser"].then.instance_s < 3600


def test_what_went_into_the_figures_stays_and_is_said() -> None:
    recorded = asyncio.run(burst(settings()))
    new = settings(scaler={"scale_up_period_s": 60.0})
    done = Replay(replace_pools(new, "other"))
    list(done.differences(recorded.records))
    told = list(done.caveats())
    assert told[0].startswith("scaler.scale_up_period_s is 60, but what was started lately")
    assert "no such pool in the new config.yaml: browser" in told


def replace_pools(own: Settings, name: str) -> Settings:
    return own.model_copy(update={"pools": {name: own.pools["browser"]}})


@pytest.mark.parametrize("extra", range(-12, 13))
def test_instances_that_differ_keep_all_counts_possible(extra: int) -> None:
    inputs = Inputs(0.0, 7, starting=2, idle=3, busy=4, drainable=2, fresh=6, active=8, open=4)
    changed = with_extra(inputs, extra)
    assert changed.running == max(0, inputs.running + extra)
    assert 0 <= changed.drainable <= changed.idle
    assert 0 <= changed.fresh <= changed.running
    assert isinstance(changed.waiting, int)
    assert changed.active + changed.waiting == 15, "no task is lost"


class Files:
    """A new config.yaml and a file of decisions, for the command."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.recorded = asyncio.run(burst(settings(min_instances=1)))
        self.path = directory / "decisions.jsonl"
        self.path.write_text("\n".join([*self.recorded.lines, '{"version":1,"at":', ""]))

    def config(self, **pool: Any) -> Path:
        path = self.directory / "new.yaml"
        document = settings(min_instances=1, **pool).model_dump(mode="json", exclude_unset=True)
        path.write_text(yaml.safe_dump(document))
        return path

    def run(self, *words: str, stdin: bytes = b"") -> tuple[int, str]:
        ran = CliRunner().invoke(replay, list(words), input=stdin, catch_exceptions=True)
        return ran.exit_code, ran.output or repr(ran.exception)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_the_command_prints_differences_totals_and_what_it_cannot_know(files: Files) -> None:
    code, output = files.run(str(files.path), "--config", str(files.config(max_instances=5)))
    assert code == 0
    assert "browser: up 1 -> 20 (60 waiting, want 61, limit: max_instances 20)" in output
    assert "  now: browser: up 1 -> 5 (60 waiting, want 61, limit: max_instances 5)" in output
    assert "limit: max_instances 5" in output
    assert "1 not understood and left out" in output
    assert "What this cannot know" in output
    [row] = [line for line in output.splitlines() if line.startswith("browser  ")]
    assert "(-" in row


@pytest.mark.parametrize("way", ["plain", "packed", "standard input"])
def test_the_command_reads_what_there_is(files: Files, way: str) -> None:
    config, stdin, name = str(files.config()), b"", str(files.path)
    if way == "packed":
        name += ".1.gz"
        Path(name).write_bytes(gzip.compress(files.path.read_bytes()))
    elif way == "standard input":
        name, stdin = "-", files.path.read_bytes()
    code, output = files.run(name, "--config", config, "--json", stdin=stdin)
    assert code == 0, output
    document = json.loads(output)
    assert document["pools"]["browser"]["then"] == document["pools"]["browser"]["now"]
    assert document["left_out"] == 1


def test_a_file_without_a_line_of_decisions_is_named(files: Files) -> None:
    files.path.write_text("hello\n")
    _, output = files.run(str(files.path), "--config", str(files.config()))
    assert "decisions.jsonl: got no line of decisions" in output
    torn = files.directory / "torn.gz"
    torn.write_bytes(gzip.compress(b"x" * 10_000)[:20])
    damaged = files.directory / "damaged.gz"
    damaged.write_bytes(gzip.compress(b"x" * 10_000)[:10] + b"\xff" * 20)
    for path in (torn, damaged, files.directory / "absent.jsonl", files.directory):
        _, output = files.run(str(path), "--config", str(files.config()))
        assert "expected a file that can be read to its end" in output

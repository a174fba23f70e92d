"""What the simulation prints, and that the documentation has just that."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.simulation import report
from bench.simulation.figures import Figures
from bench.simulation.models import models, run_models
from bench.simulation.scale_downs import ScaleDowns
from bench.simulation.traces import TRACES
from swarm.settings import ScalerSettings

DOWNS = ScaleDowns(
    scale_downs=10_004, interrupted=0, met_a_task=0, tasks=9, histories=2, slipped_in=3, cancelled=5
)


def make_figures(**fields: float) -> Figures:
    known = {"p50_wait_s": 1.0, "p95_wait_s": 2.0, "kills": 0, "unfinished": 0}
    return Figures(**{**known, "worker_hours": 1.0, "starts": 5, "reversals": 1, **fields})  # type: ignore[arg-type]


def make_table(**ours: float) -> report.Table:
    others = {"keda": make_figures(p95_wait_s=40.0), "exact": make_figures(kills=7)}
    return {"burst": {"ours": make_figures(**ours), **others}}


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ({"p95_wait_s": 2.5, "worker_hours": 1.15}, "met"),
        ({"p95_wait_s": 2.6}, "missed: p95 wait"),
        ({"worker_hours": 1.16}, "missed: worker-hours"),
        ({"kills": 1, "reversals": 2}, "missed: kills, reversals"),
    ],
)
def test_what_is_asked_for_is_judged(ours: dict[str, float], verdict: str) -> None:
    assert report.render(make_table(**ours)).splitlines()[-1].endswith(f"| {verdict} |")


def test_the_last_line_has_the_keys_that_are_read() -> None:
    document = report.Summary(1, make_table(kills=2), DOWNS).document()
    assert json.loads(json.dumps(document)) == document
    assert document["kills"] == 2
    assert (document["scale_downs"], document["interrupted"]) == (10_004, 0)
    traces = document["traces"]
    assert isinstance(traces, dict)
    assert traces["burst"]["exact"].keys() >= {
        *("p50_wait_s", "p95_wait_s", "worker_hours", "starts", "reversals", "kills")
    }


def test_the_tables_go_where_the_page_has_them(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- made by make bench-scaler -->\nold\n<!-- end -->\nz\n", "utf-8")
    report.write_page("new", page)
    assert page.read_text("utf-8") == (
        "a\n<!-- made by make bench-scaler -->\nnew\n<!-- end -->\nz\n"
    )
    page.write_text("nothing", "utf-8")
    with pytest.raises(ValueError, match="has no lines"):
        report.write_page("new", page)


def _documented() -> report.Table:
    """The figures of the page."""
    table: dict[str, dict[str, Figures]] = {}
    for trace, model, *cells in re.findall(
        r"^\| (\w+) \| (ours|keda|exact) \| ([\d.]+) s \| ([\d.]+) s \| (\d+) \| (\d+) "
        r"\| ([\d.]+) \| (\d+) \| (\d+) \|$",
        report.PAGE.read_text("utf-8"),
        re.MULTILINE,
    ):
        p50, p95, kills, unfinished, hours, starts, reversals = cells
        table.setdefault(trace, {})[model] = Figures(
            *(float(p50), float(p95), int(kills), int(unfinished)),
            *(float(hours), int(starts), int(reversals)),
        )
    return table


def test_the_page_has_what_follows_from_its_figures() -> None:
    table = _documented()
    assert list(table) == list(TRACES)
    assert report.render(table) in report.PAGE.read_text("utf-8"), "make bench-scaler"


@pytest.mark.parametrize("trace", ["burst", "ramp", "bursts", "mixed"])
async def test_the_page_has_the_figures_of_today(trace: str) -> None:
    """`make bench-scaler BENCH_ARGS=--write-docs` after a change of the policy."""
    runs = await run_models(trace, models(ScalerSettings()), 1)
    assert {name: Figures.of(run) for name, run in runs.items()} == _documented()[trace]

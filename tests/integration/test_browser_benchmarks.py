"""The benchmarks of browser work run and tell what they promise; no figure is judged here."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from tests.integration.benchmarks import run_benchmark
from tests.integration.stage import REPOSITORY
from tests.programs import CHROMIUM, need

pytestmark = pytest.mark.timeout(300)


def run(module: str, *words: str) -> dict[str, Any]:
    """As root, wherever the repository lies: nobody else may be let in."""
    need(CHROMIUM, "chromium-headless-shell")
    return run_benchmark(module, "--as-root", *words)


def test_throughput_measures_everybody() -> None:
    figures = run("bench.throughput", "--rounds=1", "--jobs=4", "--stock-jobs=2")
    raw = figures["raw_jobs_per_s"]
    # One round: its ratios are those of the figures.
    for mode in ("prefork", "threads", "solo"):
        measured = figures["modes"][mode]
        assert measured["ratio_to_raw"] == pytest.approx(measured["jobs_per_s"] / raw, rel=0.05)
        for other in ("stock_celery", "crawlee"):
            ratio = measured["jobs_per_s"] / figures[f"{other}_jobs_per_s"]
            assert measured[f"ratio_to_{other}"] == pytest.approx(ratio, rel=0.05)
        assert measured["cpu_s_per_job"] > 0
    assert figures["threads_with_egress_proxy"]["jobs_per_s"] > 0


def test_density_counts_browsers_and_drivers() -> None:
    figures = run("bench.density", "--at-once", "1", "2", "--waves=1")
    assert set(figures["mb_per_task"]) == {"raw", "threads", "prefork", "stock"}
    for by_count in figures["mb_per_task"].values():
        assert set(by_count) == {"1", "2"}
        # A driver and a browser alone take more.
        assert by_count["1"] > 100
    threads, prefork = (figures["mb_per_task"][mode]["2"] for mode in ("threads", "prefork"))
    assert threads < prefork


def test_a_soak_counts_tasks_and_what_is_left() -> None:
    figures = run("bench.soak", "--tasks=120")
    assert figures["tasks"] == 120
    assert figures["failures"] == figures["orphans"] == figures["leftover_files"] == 0
    assert figures["memory_first_quarter_mb"] > 100


def test_an_ablation_compares_a_change_with_what_it_changes() -> None:
    figures = run(
        "bench.ablation", "--rounds=1", "--jobs=2", "--only", "raw", "raw-prepared", "engine",
        "engine-no-listeners",
    )  # fmt: skip
    variants = figures["variants"]
    bases = {"raw-prepared": "raw", "engine": "raw", "engine-no-listeners": "engine"}
    assert set(variants) == {"raw", *bases}
    for name, base in bases.items():
        # One round: its ratios are those of the figures.
        ratio = variants[name]["cpu_s_per_job"] / variants[base]["cpu_s_per_job"]
        assert variants[name]["cpu_ratio"] == pytest.approx(ratio, rel=0.05)


def test_pictures_are_weighed_against_playwrights() -> None:
    figures = run("bench.pictures")
    assert set(figures) == {"text", "photograph", "nothing"}
    for page in figures.values():
        assert page["ratio"] == pytest.approx(page["bytes"] / page["playwright_bytes"], rel=0.01)
        assert page["bytes"] > 1000


def test_nobody_is_told_when_he_cannot_read_the_repository(tmp_path: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root becomes somebody else")
    program = (
        "import argparse, pathlib, sys\n"
        "from bench import unprivileged\n"
        f"unprivileged._REPOSITORY = pathlib.Path({str(tmp_path / 'closed')!r})\n"
        "unprivileged.leave_root(argparse.Namespace(as_root=False))\n"
    )
    (tmp_path / "closed" / "bench").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--as-root" in done.stderr

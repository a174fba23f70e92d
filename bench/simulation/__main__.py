"""The scaler's policy against KEDA's defaults and an exact count: `make bench-scaler`.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

import yaml

from bench.simulation import plots, report
from bench.simulation.figures import Figures
from bench.simulation.models import models, run_models
from bench.simulation.scale_downs import ScaleDowns, scale_down
from bench.simulation.traces import TRACES
from swarm.settings import ScalerSettings

_PLOTS = Path(".cache/bench-scaler")
_PAGES_PLOTS = report.PAGE.parent / "images"


def main() -> int:
    """Simulate, print, draw."""
    parser = argparse.ArgumentParser(prog="bench.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--traces", nargs="+", choices=TRACES, default=list(TRACES))
    parser.add_argument(
        "--scale-downs", type=int, default=10_000, help="stops to look at; 0 for none"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="our scaler's settings, as in config.yaml: stabilisation_s=30",
    )
    parser.add_argument("--plots", type=Path, default=_PLOTS, help="where the pictures go")
    parser.add_argument(
        "--write-docs", action="store_true", help="put tables and pictures into the documentation"
    )
    options = parser.parse_args()
    pairs = [each.partition("=") for each in options.set]
    scaler = ScalerSettings.model_validate({key: yaml.safe_load(text) for key, _, text in pairs})
    directory = _PAGES_PLOTS if options.write_docs else options.plots
    directory.mkdir(parents=True, exist_ok=True)
    table = {}
    for trace in options.traces:
        runs = asyncio.run(run_models(trace, models(scaler), options.seed))
        table[trace] = {name: Figures.of(run) for name, run in runs.items()}
        plots.draw(trace, runs, directory / f"scaler-{trace}.png")
        for name, figures in table[trace].items():
            print(report.row(trace, name, figures), flush=True)
    scale_downs: ScaleDowns | None = None
    if options.scale_downs:
        scale_downs = asyncio.run(scale_down(options.scale_downs, options.seed))
    rendered = report.render(table, scale_downs)
    print(f"\n{rendered}\n\nplots in {directory}")
    if options.write_docs:
        report.write_page(rendered)
    print(json.dumps(report.Summary(options.seed, table, scale_downs).document()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""One picture a trace: how many instances run and how many tasks wait, under each model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.simulation.model import Run

_COLOURS = {"ours": "#0072b2", "keda": "#d55e00", "exact": "#009e73"}


def draw(trace: str, runs: Mapping[str, Run], target: Path) -> None:
    """Write the picture, a PNG of about 50 kB; the same runs give the same bytes."""
    figure = Figure(figsize=(9, 5), dpi=80, layout="constrained")
    instances, waiting = figure.subplots(2, 1, sharex=True)
    for model, run in runs.items():
        minutes = [sample.at / 60 for sample in run.samples]
        style = {"color": _COLOURS[model], "linewidth": 1.0, "label": model}
        instances.plot(minutes, [sample.instances for sample in run.samples], **style)
        waiting.plot(minutes, [sample.waiting for sample in run.samples], **style)
    instances.set_title(trace)
    instances.set_ylabel("instances")
    instances.legend(loc="upper right")
    waiting.set_ylabel("tasks waiting")
    waiting.set_xlabel("minutes")
    for axes in (instances, waiting):
        axes.grid(visible=True, alpha=0.3)
        axes.set_ylim(bottom=0)
    with mpl.rc_context({"savefig.pad_inches": 0.1}):
        figure.savefig(target, metadata={"Software": None})

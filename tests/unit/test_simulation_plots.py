"""The simulation's pictures."""

from __future__ import annotations

from pathlib import Path

from bench.simulation.models import models, run_models
from bench.simulation.plots import draw
from swarm.settings import ScalerSettings


async def test_a_picture_is_a_small_png_and_the_same_each_time(tmp_path: Path) -> None:
    runs = await run_models("burst", models(ScalerSettings()), 1)
    pictures = []
    for name in ("one.png", "two.png"):
        draw("burst", runs, tmp_path / name)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0].startswith(b"\x89PNG")
    assert len(pictures[0]) < 150_000
    assert pictures[0] == pictures[1]

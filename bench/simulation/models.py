"""The models by the names they have in the report, and all of them on one trace."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from bench.simulation.exact import Exact
from bench.simulation.keda import Keda
from bench.simulation.model import MakeModel, Run, simulate
from bench.simulation.ours import Ours
from bench.simulation.traces import TRACES
from bench.simulation.world import Fleet
from swarm.settings import ScalerSettings


def models(scaler: ScalerSettings) -> dict[str, MakeModel]:
    """`scaler` is for ours."""
    return {"ours": partial(Ours, scaler=scaler), "keda": Keda, "exact": Exact}


async def run_models(trace: str, each: Mapping[str, MakeModel], seed: int) -> dict[str, Run]:
    """The same trace under each model."""
    history = TRACES[trace](seed)
    return {name: await simulate(history, Fleet(), make, seed) for name, make in each.items()}

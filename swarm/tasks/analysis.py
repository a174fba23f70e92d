"""Analysis tasks: markup to readable text, metadata and links."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from swarm.analysis.model import parse_analysis_job
from swarm.analysis.reading import analyse
from swarm.celery_app import app
from swarm.tasks import RETRY
from swarm.worker import process


@app.task(name="analysis.run", max_retries=3, **RETRY)
def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Analyse markup; `payload` as `AnalysisJob`, the answer as `AnalysisResult`.

    Raises:
        ConfigError: a payload that `swarm submit` would have refused.
    """
    result = asdict(analyse(parse_analysis_job(payload)))
    result["host"] = process.host()
    return result

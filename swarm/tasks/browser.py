"""Browser tasks: one page, on the warm browser of this worker process."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from swarm.browse.model import TransientJobError, parse_browser_job
from swarm.celery_app import app
from swarm.tasks import RETRY
from swarm.worker import process


@app.task(name="browser.run", autoretry_for=(TransientJobError,), max_retries=3, **RETRY)
def run(payload: dict[str, Any]) -> dict[str, Any]:
    """Do a browser job; `payload` as `BrowserJob`, the answer as `JobResult`.

    Raises:
        ConfigError: a payload that `swarm submit` would have refused.
        JobError: transient ones are retried.
    """
    result = asdict(process.run_browser_job(parse_browser_job(payload)))
    result["host"] = process.host()
    return result

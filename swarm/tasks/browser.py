"""Browser tasks: one page, on the warm browser of this worker process.

`browser.run` takes a whole payload. The others are the common cases: a URL, what matters to the
case, and any other section of the payload by its name (`limits={"deadline_s": 20}`).
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from swarm.browse.errors import ErrorCode, JobError, TransientJobError, job_error
from swarm.browse.payload import parse_browser_job
from swarm.celery_app import app
from swarm.delivery.message import waited_s
from swarm.errors import ConfigError
from swarm.tasks import RETRY
from swarm.worker import process

_OPTIONS: dict[str, Any] = {
    "bind": True,
    "autoretry_for": (TransientJobError,),
    "max_retries": 3,
    # A page that fails is nothing to trace back: the journal gets one line.
    "throws": (JobError,),
    **RETRY,
}


@app.task(name="browser.run", **_OPTIONS)
def run(self: Any, payload: dict[str, Any]) -> dict[str, Any]:
    """Do a browser job; `payload` as `BrowserJob`, the answer as `JobResult`.

    Raises:
        JobError: transient ones are retried. INVALID for what `swarm submit` would have refused.
    """
    return _browse(self.request, payload)


@app.task(name="browser.screenshot", **_OPTIONS)
def screenshot(self: Any, url: str, *, full_page: bool = False, **sections: Any) -> dict[str, Any]:
    """A picture of the page: `data["screenshot"]` is the id of its artifact."""
    action = {"kind": "screenshot", "full_page": full_page}
    return _browse(self.request, {"url": url, "actions": [action], **sections})


@app.task(name="browser.pdf", **_OPTIONS)
def pdf(self: Any, url: str, **sections: Any) -> dict[str, Any]:
    """The page as printed on A4: `data["pdf"]` is the id of its artifact."""
    return _browse(self.request, {"url": url, "actions": [{"kind": "pdf"}], **sections})


@app.task(name="browser.html", **_OPTIONS)
def html(self: Any, url: str, **sections: Any) -> dict[str, Any]:
    """The markup after scripts ran: `data["html"]`."""
    return _browse(self.request, {"url": url, "actions": [{"kind": "html"}], **sections})


@app.task(name="browser.markdown", **_OPTIONS)
def markdown(self: Any, url: str, *, main_content: bool = True, **sections: Any) -> dict[str, Any]:
    """The article, or everything, as Markdown: `data["markdown"]`."""
    action = {"kind": "markdown", "main_content": main_content}
    return _browse(self.request, {"url": url, "actions": [action], **sections})


@app.task(name="browser.extract", **_OPTIONS)
def extract(self: Any, url: str, fields: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """Values by CSS selectors: `data["extract"]`, with the names of `fields`."""
    action = {"kind": "extract", "fields": fields}
    return _browse(self.request, {"url": url, "actions": [action], **sections})


def _browse(request: Any, payload: dict[str, Any]) -> dict[str, Any]:
    try:
        job = parse_browser_job(payload)
    except ConfigError as exc:
        raise job_error(ErrorCode.INVALID, str(exc), stage="payload") from exc
    result = asdict(process.run_browser_job(job, task_id=request.id, queue_s=waited_s(request)))
    result["host"] = process.host()
    return result

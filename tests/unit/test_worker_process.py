"""What a worker process adds to a job: the pool's own limit."""

from __future__ import annotations

from typing import Any

import pytest

from swarm.browse.payload import BrowserJob, parse_browser_job
from swarm.errors import SwarmError
from swarm.worker import process


class Engine:
    """Answers with the job it was given."""

    def run(self, job: BrowserJob, *, task_id: str) -> BrowserJob:
        return job


def job(deadline_s: float) -> BrowserJob:
    return parse_browser_job(
        {
            "url": "http://h/",
            "actions": [{"kind": "text"}],
            "limits": {"deadline_s": deadline_s},
        }
    )


@pytest.mark.parametrize(("asked_s", "given_s"), [(30, 30), (110, 110), (600, 110)])
def test_a_jobs_deadline_ends_before_the_pools_limit(
    monkeypatch: pytest.MonkeyPatch, asked_s: float, given_s: float
) -> None:
    monkeypatch.setattr(process, "_engine", Engine())
    monkeypatch.setattr(process, "_deadline_s", 110.0)
    answer: Any = process.run_browser_job(job(asked_s), task_id="t")
    assert answer.limits.deadline_s == given_s


def test_a_browser_job_in_a_pool_without_browsers_says_so() -> None:
    with pytest.raises(SwarmError, match="its pool is not of task_type browser"):
        process.run_browser_job(job(30), task_id="t")

"""What a worker process adds to a job: the pool's own limit, its wait, and word of its end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from swarm.browse.errors import ErrorCode, JobError, job_error
from swarm.browse.payload import BrowserJob, parse_browser_job
from swarm.browse.result import Artifact, JobResult, NetworkCounts
from swarm.errors import SwarmError
from swarm.worker import process
from swarm.worker.telemetry import Message, Telemetry

ARTIFACT = Artifact("id", "screenshot", "image/png", 80, "00", "2026-01-01T00:00:00Z", "file://h/x")


class Engine:
    """Does nothing, or fails; keeps what it was given."""

    def __init__(self, failure: JobError | None = None) -> None:
        self.failure = failure
        self.given: list[BrowserJob] = []

    def run(self, job: BrowserJob, *, task_id: str) -> JobResult:
        self.given.append(job)
        result = JobResult(
            "ok",
            "http://h/",
            200,
            "",
            artifacts=(ARTIFACT,),
            network=NetworkCounts(bytes=700),
            timings_s={"launch": 0.1, "total": 0.5},
        )
        if self.failure is not None:
            raise self.failure.with_result(asdict(result))
        return result


def job(deadline_s: float = 30) -> BrowserJob:
    return parse_browser_job(
        {
            "url": "http://h/",
            "actions": [{"kind": "text"}],
            "limits": {"deadline_s": deadline_s},
        }
    )


def work(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> Telemetry:
    telemetry = Telemetry()
    given: Any = process._BrowserWork(engine, telemetry, 110.0)  # type: ignore[arg-type]
    monkeypatch.setattr(process, "_work", given)
    return telemetry


@pytest.mark.parametrize(("asked_s", "given_s"), [(30, 30), (110, 110), (600, 110)])
def test_a_jobs_deadline_ends_before_the_pools_limit(
    monkeypatch: pytest.MonkeyPatch, asked_s: float, given_s: float
) -> None:
    engine = Engine()
    work(monkeypatch, engine)
    process.run_browser_job(job(asked_s), task_id="t")
    assert [given.limits.deadline_s for given in engine.given] == [given_s]


@pytest.mark.parametrize("failure", [None, job_error(ErrorCode.DNS, "no", stage="navigation")])
def test_a_job_tells_its_stages_and_bytes_however_it_ends(
    monkeypatch: pytest.MonkeyPatch, failure: JobError | None
) -> None:
    telemetry = work(monkeypatch, Engine(failure))
    try:
        timings = process.run_browser_job(job(), task_id="t", queue_s=0.25).timings_s
    except JobError as exc:
        timings = (exc.result or {})["timings_s"]
    assert timings == {"launch": 0.1, "total": 0.5, "queue": 0.25}
    told: list[Message] = []
    telemetry.read(told.append, timeout_s=0)
    [message] = told
    assert (message.kind, message.count, message.artifact_bytes) == ("job", 700, 80)
    assert message.stages == {"launch": 0.1, "total": 0.5}


def test_a_wait_that_nobody_knows_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    work(monkeypatch, Engine())
    assert "queue" not in process.run_browser_job(job(), task_id="t").timings_s


def test_a_browser_job_in_a_pool_without_browsers_says_so() -> None:
    with pytest.raises(SwarmError, match="its pool is not of task_type browser"):
        process.run_browser_job(job(30), task_id="t")

"""How far a visit came: its stage, the seconds of each stage, the outcome of each step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from playwright.async_api import Error as PlaywrightError

from swarm.browse.errors import ErrorCode, JobError, job_error
from swarm.browse.failures import (
    LAUNCH_STAGE,
    STORE_ERRORS,
    classify,
    store_failure,
    unforeseen,
)
from swarm.browse.payload import BrowserJob
from swarm.browse.payload.actions import Action
from swarm.browse.payload.steps import Step
from swarm.browse.result import StepOutcome

#: Seconds beyond a step's own time limit, in which Playwright itself should have ended it.
_LENIENCE_S = 0.25
#: Without a page the steps that follow cannot be done either.
_ENDS_THE_PAGE = frozenset({ErrorCode.PAGE_CRASH, ErrorCode.BROWSER_LOST})


class Progress:
    """Of one attempt at one job."""

    def __init__(self, job: BrowserJob) -> None:
        self._job = job
        self._done: list[StepOutcome] = []
        self.stage = LAUNCH_STAGE
        self.timings_s: dict[str, float] = {}
        self.optional_failure: JobError | None = None

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Write the seconds that the block took, also when it failed."""
        started_at = time.monotonic()
        try:
            yield
        finally:
            self.timings_s[name] = round(time.monotonic() - started_at, 4)

    @asynccontextmanager
    async def doing(self, thing: Step | Action, stage: str) -> AsyncIterator[float]:
        """Do one step or action in the block, which gets the milliseconds that it may take.

        Raises:
            JobError: it failed, and is not optional.
        """
        self.stage = stage
        timeout_s = thing.timeout_s or self._job.limits.step_timeout_s
        started_at = time.monotonic()
        failure: JobError | None = None
        try:
            async with asyncio.timeout(timeout_s + _LENIENCE_S):
                yield timeout_s * 1000
        except JobError as exc:
            failure = exc
        except PlaywrightError as exc:
            failure = classify(exc, stage=stage)
        except STORE_ERRORS as exc:
            failure = store_failure(exc, stage=stage)
        except asyncio.CancelledError:
            failure = job_error(ErrorCode.CANCELLED, "given up", stage=stage)
            raise
        except TimeoutError:
            # What the browser itself does not end, such as a script that never returns.
            message = f"not done within {timeout_s:g} s"
            failure = job_error(ErrorCode.ACTION_FAILED, message, stage=stage)
        except Exception as exc:  # noqa: BLE001 - what pages give has no limits
            failure = unforeseen(exc, stage=stage)
        finally:
            self._note(thing, started_at, failure)
        if failure is None:
            return
        if not thing.optional or failure.code in _ENDS_THE_PAGE:
            raise failure
        self.optional_failure = self.optional_failure or failure

    def outcomes(self) -> tuple[StepOutcome, ...]:
        """Of all steps and actions, in the payload's order; those not reached are skipped."""
        rest = [*self._job.steps, *self._job.actions][len(self._done) :]
        skipped = [
            StepOutcome(thing.name or thing.kind, thing.kind, "skipped", 0.0) for thing in rest
        ]
        return (*self._done, *skipped)

    def _note(self, thing: Step | Action, started_at: float, failure: JobError | None) -> None:
        self._done.append(
            StepOutcome(
                name=thing.name or thing.kind,
                kind=thing.kind,
                status="ok" if failure is None else "failed",
                ms=round((time.monotonic() - started_at) * 1000, 1),
                error=None if failure is None else f"{failure.code}: {failure.message}",
            )
        )

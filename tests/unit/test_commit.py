"""A task's own process tells the broker of its end, or leaves it on the disk, whatever strikes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from billiard.exceptions import SoftTimeLimitExceeded

from swarm.delivery import commit as module
from swarm.delivery.commit import commit
from swarm.delivery.outcome import Outcome
from swarm.delivery.spool import Spool, SpooledEnd


class Away:
    """A broker that is away for so many attempts."""

    def __init__(self, attempts: int) -> None:
        self.attempts = attempts

    def evalsha(self, _sha: str, _keys: int, *_arguments: Any) -> bytes:
        if self.attempts == 0:
            return b"committed"
        self.attempts -= 1
        raise redis.ConnectionError("Connection refused")


class StruckSpool(Spool):
    """The soft time limit strikes while the end is written."""

    struck = False

    def write(self, end: SpooledEnd) -> None:
        if not self.struck:
            self.struck = True
            raise SoftTimeLimitExceeded
        super().write(end)


@pytest.fixture
def spool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Spool:
    """Of the holder that this process has inherited; attempts follow at once."""
    made = StruckSpool(tmp_path, "primary")
    holder = SimpleNamespace(name="holder", is_inherited=True, spool=made)
    monkeypatch.setattr(module, "worker_holder", lambda: holder)
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "_SPOOL_AFTER_S", 0.0)
    return made


def test_a_soft_time_limit_that_strikes_after_the_body_changes_nothing(spool: Spool) -> None:
    outcome = Outcome("tag", "task")
    commit(outcome, Away(attempts=5))  # type: ignore[arg-type]
    assert outcome.is_closed
    assert spool.tags() == {"tag"}


def test_it_may_strike_while_the_wait_is_logged(
    monkeypatch: pytest.MonkeyPatch, spool: Spool
) -> None:
    monkeypatch.setattr(module, "_SPOOL_AFTER_S", 60.0)
    strikes = [SoftTimeLimitExceeded()]

    def log(*_: Any, **__: Any) -> None:
        if strikes:
            raise strikes.pop()

    monkeypatch.setattr(module.log, "warning", log)
    outcome = Outcome("tag", "task")
    commit(outcome, Away(attempts=2))  # type: ignore[arg-type]
    assert outcome.is_closed
    assert not strikes
    assert spool.tags() == set()

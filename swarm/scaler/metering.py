"""The budget of a metered broker: kept in a file, told to people, its gate closed in time.

Nobody is asked for the accounts: instances say it in their status files, producers with scripts
that run anyway, Flower among its metrics, and the scaler counts its own.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from redis.exceptions import RedisError

from swarm.brokers.budget import Budget, Outlook, outlook
from swarm.scaler.model import Instance
from swarm.scaler.readings import Accounts, Closure, Reading

log = logging.getLogger(__name__)

#: Requests of a task before any were measured: published, taken, committed, three events, its part
#: of bells and leases.
_REQUESTS_PER_TASK = 8.0
#: Tasks that have to end until what one asks is believed.
_MEASURED_TASKS = 20
_SAVE_AFTER = timedelta(minutes=1)
#: Until the broker is told again that could not be told: each attempt may count.
_GATE_AGAIN = timedelta(minutes=1)


class Gate(Protocol):
    """Lets producers in, or sends them elsewhere."""

    async def close_to_producers(self, reason: str, until: float) -> None: ...

    async def open_to_producers(self) -> None: ...


class Meter:
    """Keeps the accounts of one broker in a file, and its gate."""

    def __init__(
        self,
        broker: str,
        budget: Budget,
        *,
        used_so_far: int,
        path: Path,
        gate: Gate,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._broker, self._budget, self._path = broker, budget, path
        self._used_so_far, self._gate, self._clock = used_so_far, gate, clock
        now = clock()
        accounts = _load(path) or Accounts.begin(budget, now)
        self._accounts = replace(accounts, ledger=accounts.ledger.resumed(now))
        self._outlook = outlook(self._accounts.ledger.at(now, budget), budget, now)
        self._saved_at = now
        self._save_failed = False
        self._told: set[str] = set()
        self._told_for = self._outlook.resets_at
        # None until it was put right once: an earlier run may have left it closed.
        self._is_closed: bool | None = None
        self._gate_refusal = ""
        self._gate_refused_at: datetime | None = None
        self._tasks_ended: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._ended = self._asked_for_them = 0

    @property
    def outlook(self) -> Outlook:
        return self._outlook

    @property
    def used(self) -> Mapping[str, int]:
        """In this period, by component."""
        return self._accounts.ledger.used

    @property
    def is_closed(self) -> bool:
        """Whether producers are sent elsewhere."""
        return bool(self._is_closed)

    @property
    def requests_per_task(self) -> float:
        """Of workers and producers together, measured once enough tasks have ended."""
        if self._ended < _MEASURED_TASKS:
            return _REQUESTS_PER_TASK
        return max(3.0, self._asked_for_them / self._ended)

    @property
    def tasks_ended(self) -> int:
        """Since this meter began."""
        return self._ended

    async def account(
        self, readings: Iterable[Reading], instances: Iterable[Instance], tasks: int | None
    ) -> None:
        """Book what was asked, tell people, and keep the rest for `tasks` if it is needed.

        `tasks` are those that the broker has; None if nobody knows now.
        """
        now = self._clock()
        accounts = self._accounts.after(readings, self._budget, now)
        self._accounts = accounts = accounts.correct(self._used_so_far)
        self._measure(instances)
        self._outlook = outlook(accounts.ledger, self._budget, now)
        self._tell()
        if _is_over(_SAVE_AFTER, since=self._saved_at, now=now):
            self.save()
        await self._keep_rest(tasks)

    def save(self) -> None:
        """Write the accounts; a failure is told once, and costs what is asked until the next."""
        self._saved_at = self._clock()
        scratch = self._path.with_suffix(".tmp")
        try:
            with scratch.open("w", encoding="utf-8") as file:
                json.dump(self._accounts.to_json(), file)
                file.flush()
                # Else a loss of power may leave an empty file in place of the last good one.
                os.fsync(file.fileno())
            scratch.replace(self._path)
        except OSError as exc:
            if not self._save_failed:
                log.warning("%s not written, a restart will count anew: %s", self._path, exc)
            self._save_failed = True
        else:
            self._save_failed = False

    def _measure(self, instances: Iterable[Instance]) -> None:
        """What is asked while tasks are being done is asked for them."""
        ended, is_working = 0, False
        for each in instances:
            pid, count = self._tasks_ended.get(each.key, (each.pid, each.tasks_ended))
            ended += max(0, each.tasks_ended - count) if pid == each.pid else each.tasks_ended
            is_working = is_working or bool(each.active or each.reserved)
            self._tasks_ended[each.key] = (each.pid, each.tasks_ended)
        self._ended += ended
        if ended or is_working:
            lately = self._accounts.lately
            self._asked_for_them += lately.get("workers", 0) + lately.get("producers", 0)

    def _tell(self) -> None:
        """One line for each warning, once in a period."""
        seen = self._outlook
        if seen.resets_at != self._told_for:
            self._told.clear()
            self._told_for = seen.resets_at
        if seen.warning is not None:
            self._tell_once(
                f"{seen.warning:.0%}",
                f"{seen.used:,} of {seen.limit:,} requests are used ({seen.share:.0%}), "
                f"{_date(seen.resets_at)} begins the next count",
            )
        if seen.exhausted_at is not None:
            self._tell_once(
                "exhausted",
                f"at {seen.per_hour:,.0f} requests an hour its {seen.limit:,} are used up on "
                f"{_date(seen.exhausted_at)}, before {_date(seen.resets_at)}",
            )

    def _tell_once(self, what: str, sentence: str) -> None:
        if what not in self._told:
            self._told.add(what)
            log.warning("the budget of the %s broker: %s", self._broker, sentence)

    async def _keep_rest(self, tasks: int | None) -> None:
        must_close = self._must_close(tasks)
        if must_close is None or must_close == self._is_closed:
            return
        now, refused_at = self._clock(), self._gate_refused_at
        if refused_at is not None and not _is_over(_GATE_AGAIN, since=refused_at, now=now):
            return
        seen = self._outlook
        try:
            if must_close:
                await self._gate.close_to_producers(
                    f"of {seen.limit:,} requests {seen.remaining:,} remain until "
                    f"{_date(seen.resets_at)}, for the tasks that are queued",
                    seen.resets_at.timestamp(),
                )
                log.warning(
                    "the %s broker takes no more tasks: %s requests remain for %s that it has",
                    self._broker,
                    f"{seen.remaining:,}",
                    "those" if tasks is None else f"the {tasks:,}",
                )
            else:
                await self._gate.open_to_producers()
                if self._is_closed:
                    log.info("the %s broker takes tasks again", self._broker)
        except (RedisError, OSError) as exc:
            self._gate_refused_at = now
            if str(exc) != self._gate_refusal:
                what = "close to" if must_close else "open to"
                log.warning("the %s broker did not %s producers: %s", self._broker, what, exc)
            self._gate_refusal = str(exc)
            return
        self._gate_refusal, self._gate_refused_at = "", None
        self._is_closed = must_close
        closed = Closure(seen.resets_at, seen.limit) if must_close else None
        if closed != self._accounts.closed:
            self._accounts = replace(self._accounts, closed=closed)
            self.save()

    def _must_close(self, tasks: int | None) -> bool | None:
        """None while it cannot be told."""
        if self._accounts.closed == Closure(self._outlook.resets_at, self._outlook.limit):
            # It opens with the next period, or when people change the limit or say what was used,
            # and not as its queues get empty: else it would open and close all the time.
            return True
        if self._is_closed:
            return False
        if tasks is None:
            return None
        return self._outlook.is_for_the_rest(tasks, self.requests_per_task)


def _load(path: Path) -> Accounts | None:
    try:
        return Accounts.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        log.warning("%s cannot be read, requests are counted anew: %r", path, exc)
        return None


def _is_over(pause: timedelta, *, since: datetime, now: datetime) -> bool:
    """A clock that was set back ends a pause: else it would last until the clock caught up."""
    return not timedelta(0) <= now - since < pause


def _date(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"

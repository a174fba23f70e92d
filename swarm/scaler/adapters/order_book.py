"""Keeps operators' orders over restarts, and ends them in time.

While it runs, orders end by the clock that nobody can set, whatever becomes of the other; in the
file their ends are Unix times. None lasts longer than it was given for, wherever the clock was set
meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from swarm.scaler.clock import since_boot
from swarm.scaler.orders import VERSION, Order, postponed, with_order, without

log = logging.getLogger(__name__)

#: Seconds by which the two clocks may drift apart without a word.
_STEP_S = 2.0


class OrderBook:
    """Of one scaler."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = since_boot,
    ) -> None:
        """Takes up what the file at `path` holds; a file that is not whole is kept aside."""
        self._path, self._clock, self._monotonic = path, clock, monotonic
        self._offset = clock() - monotonic()
        self._may_write = True
        self._is_written = True
        self._problem: str | None = None
        self._orders = self._load()

    def standing(self) -> tuple[Order, ...]:
        """Those that hold now. Called in every turn: it also writes what could not be written."""
        self._notice_step()
        now = self._clock()
        ended = [each for each in self._orders if each.until is not None and each.until <= now]
        for order in ended:
            log.info("ended: %s", order)
        if ended:
            self._change(without(self._orders, *(order.key for order in ended)))
        elif not self._is_written:
            self._write()
        return self._orders

    def give(self, order: Order) -> None:
        """It holds from now on, in place of an earlier one for the same."""
        self._change(with_order(self._orders, order))
        log.info("order: %s", order)

    def withdraw(self, *keys: tuple[object, ...]) -> tuple[Order, ...]:
        """Those of them that held until now."""
        withdrawn = tuple(order for order in self.standing() if order.key in keys)
        if withdrawn:
            self._change(without(self._orders, *keys))
        for order in withdrawn:
            log.info("withdrawn: %s", order)
        return withdrawn

    @property
    def problem(self) -> str | None:
        """Why a restart would not know the orders as they are; None if it would."""
        return None if self._is_written else self._problem

    def _notice_step(self) -> None:
        step_s = self._clock() - self._monotonic() - self._offset
        if abs(step_s) > _STEP_S:
            self._offset += step_s
            if self._orders:
                log.warning("the clock was set by %.0f s: orders end when they would have", step_s)
                self._change(postponed(self._orders, step_s))

    def _change(self, orders: tuple[Order, ...]) -> None:
        self._orders = orders
        self._is_written = False
        self._write()

    def _write(self) -> None:
        if not self._may_write:
            return
        document = {"version": VERSION, "orders": [order.to_json() for order in self._orders]}
        scratch = self._path.with_suffix(".tmp")
        try:
            with scratch.open("w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(self._path)
            _sync_directory(self._path.parent)
        except OSError as exc:
            self._complain(f"{self._path} not written ({exc.strerror})")
        else:
            self._is_written, self._problem = True, None

    def _complain(self, problem: str) -> None:
        if problem != self._problem:
            log.warning(
                "%s: a restart of the scaler would not know the orders as they are", problem
            )
        self._problem = problem

    def _load(self) -> tuple[Order, ...]:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        except OSError as exc:
            self._may_write = False
            self._is_written = False
            self._complain(f"{self._path} cannot be read ({exc.strerror})")
            return ()
        orders, problems = _parse(text)
        if problems:
            self._keep_aside("; ".join(problems), len(orders))
        found: tuple[Order, ...] = ()
        for order in orders:
            # One given in the future is by a clock that has been set back since.
            [moved] = postponed([order], min(0.0, self._clock() - order.given_at))
            found = with_order(found, moved)
            log.info("order: %s", moved)
        if problems:
            self._change(found)
        return found

    def _keep_aside(self, problems: str, good: int) -> None:
        aside = self._path.with_name(f"{self._path.stem}.bad-{time.time_ns()}.json")
        try:
            self._path.rename(aside)
        except OSError as exc:
            # It is not to be lost, so nothing takes its place.
            self._may_write = False
            self._is_written = False
            self._complain(
                f"{self._path} is not understood and cannot be kept aside ({exc.strerror})"
            )
            aside = self._path
        log.warning(
            "orders that are not understood do not hold any more, %d others do; kept in %s: %s",
            good,
            aside,
            problems,
        )


def _parse(text: bytes) -> tuple[list[Order], list[str]]:
    """Those that are whole, and what is wrong with the others."""
    try:
        document = json.loads(text)
        if document["version"] != VERSION:
            return [], [f"version {document['version']!r}, expected {VERSION}"]
        entries = list(document["orders"])
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        return [], [f"no orders: {exc!r}"]
    orders, problems = [], []
    for entry in entries:
        try:
            orders.append(Order.from_json(entry))
        except ValueError as exc:
            problems.append(str(exc))
    return orders, problems


def _sync_directory(directory: Path) -> None:
    """Or a loss of power may undo the renaming."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)

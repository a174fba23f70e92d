"""When a page's events are too many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from swarm.browse.floods import MAX_ERRORS, MAX_WINDOWS, Floods, Meter


def test_a_meter_tells_when_there_are_too_many_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = Meter(25, 11)
    monkeypatch.setattr("time.monotonic", lambda: meter.count / 10)
    assert [meter.add() for _ in range(26)] == [False] * 25 + [True]


def test_a_meter_tells_when_there_are_too_many_within_a_second(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    meter = Meter(1000, 10)
    assert not any(meter.add() for _ in range(10))
    assert meter.add()
    now[0] = 1.0
    assert not meter.add()


class Context:
    """Calls what was registered."""

    def __init__(self) -> None:
        self.listeners: dict[str, Any] = {}

    def on(self, event: str, listener: Any) -> None:
        self.listeners[event] = listener


class Window:
    def __init__(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True


async def test_windows_are_closed_and_counted() -> None:
    told: list[str] = []
    context = Context()
    fake: Any = context
    Floods(told.append).watch(fake)
    windows = [Window() for _ in range(MAX_WINDOWS + 1)]
    for window in windows:
        assert told == []
        context.listeners["page"](window)
    await asyncio.sleep(0)
    assert all(window.closed for window in windows)
    assert told == [f"the page opened more than {MAX_WINDOWS} windows"]


def test_errors_are_counted() -> None:
    told: list[str] = []
    context = Context()
    fake: Any = context
    Floods(told.append).watch(fake)
    for _ in range(MAX_ERRORS):
        context.listeners["weberror"](None)
    assert told == []
    context.listeners["weberror"](None)
    assert told == [f"the page threw more than {MAX_ERRORS} errors"]

"""The scaler's clock, and what others say as it may be told."""

from __future__ import annotations

import time

import pytest

from swarm.scaler.clock import since_boot
from swarm.scaler.model import Unknown, one_line


def test_the_clock_goes_on_while_the_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The monotonic clock does not: after an hour's sleep all that is known would look fresh."""
    clocks = {time.CLOCK_MONOTONIC: 100.0, time.CLOCK_BOOTTIME: 3700.0}
    monkeypatch.setattr(time, "clock_gettime", clocks.__getitem__)
    assert since_boot() == 3700.0


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("no answer in 10 s", "no answer in 10 s"),
        ("", ""),
        ("a\nSTOPPING=1\n", "a STOPPING=1"),
        ("\x1b[2J\x07gone\x00", "[2J gone"),
        ("h\u202eidden", "h idden"),
        ("x" * 501, "x" * 497 + "..."),
        ("\n" * 100_000 + "lost", ""),
        ("Größe", "Größe"),
    ],
)
def test_what_others_say_is_one_line_without_control_characters(said: str, told: str) -> None:
    assert one_line(said) == told
    assert Unknown(said).reason == told

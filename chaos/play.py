"""A run from the first strike to the last task, told as it happens."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from chaos.deployed_lab import CONTROL, DeployedLab, MissedError
from chaos.fault_context import FaultContext
from chaos.faults import FAULTS
from chaos.preparation import leftovers
from chaos.producers import Producers
from chaos.schedule import Strike

DRAIN_TIMEOUT_S = 240


@dataclass(slots=True)
class Story:
    """What has struck, told as it happens."""

    begun: float = field(default_factory=time.monotonic)
    struck: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)

    def tell(self, line: str) -> None:
        print(f"{time.monotonic() - self.begun:>6.1f} s  {line}", flush=True)


def play(context: FaultContext, story: Story) -> None:
    """Strike as scheduled, each fault in a thread of its own; returns when all are undone."""
    threads = []
    for strike in context.schedule.strikes:
        time.sleep(max(0.0, story.begun + strike.at_s - time.monotonic()))
        thread = threading.Thread(
            target=_carry_out, args=(context, strike, story), name=strike.fault
        )
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join()


def _carry_out(context: FaultContext, strike: Strike, story: Story) -> None:
    try:
        what = FAULTS[strike.fault](context, strike)
    except MissedError as exc:
        story.tell(f"{strike.fault}: missed, {exc}")
    except Exception as exc:  # noqa: BLE001 - told, and the run fails for it
        story.errors.append(f"{strike.fault} on {strike.host}: {exc!r}")
        story.tell(f"{strike.fault}: FAILED, {exc!r}")
    else:
        story.struck[strike.fault] += 1
        story.tell(f"{strike.fault}: {what}")


def finish(producers: Producers, story: Story) -> None:
    """Wait until everything is submitted."""
    deadline = time.monotonic() + 60
    while producers.running() and time.monotonic() < deadline:
        time.sleep(0.2)
    if producers.running() or producers.failures():
        story.errors.append(f"producers did not end well: {producers.failures()}")
    story.tell("all is submitted")


def drain(lab: DeployedLab, story: Story) -> int:
    """Wait until nothing is left, replaying dead letters; returns how many there were."""
    replayed = 0
    quiet = 0
    deadline = time.monotonic() + DRAIN_TIMEOUT_S
    while quiet < 3 and time.monotonic() < deadline:
        left = leftovers(lab)
        if set(left) == {"dead"}:
            told = lab.on(CONTROL.name, "swarm dead replay --all")
            replayed += len(told.splitlines())
        quiet = 0 if left else quiet + 1
        time.sleep(0.5)
    story.tell(f"drained, with {replayed} dead letters replayed")
    return replayed

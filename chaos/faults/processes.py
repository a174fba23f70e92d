"""Deaths, stops and one long sleep of processes, wherever they are in their work."""

from __future__ import annotations

import contextlib
import signal
import time

from chaos.field import MissedError, holder_prefix
from chaos.proxy import Where
from chaos.recovery import held_by, look
from chaos.schedule import LASTS_S, Strike
from chaos.stage import Stage, wait_for_reaper
from lab.commands import LabError

#: Seconds between a frozen worker's children and their parent on the way back: the children try
#: to commit what has been given to others meanwhile; the parent has systemd's watchdog waiting.
THAW_S = 3.0


def kill_worker(stage: Stage, strike: Strike) -> str:
    """kill -9 of an instance's main process."""
    unit, messages = stage.field.stop_busy_worker(strike.host, strike.chance)
    stage.field.note_death(unit)
    struck_at = time.monotonic()
    if unit.main is not None:
        unit.send(signal.SIGKILL, [unit.main])
    unit.send(signal.SIGCONT)
    stage.watch.struck("process", strike.fault, messages, struck_at)
    return f"{unit}, which held {len(messages)}"


def kill_child(stage: Stage, strike: Strike) -> str:
    """kill -9 of the pool processes of an instance."""
    unit, messages = stage.field.stop_busy_worker(
        strike.host, strike.chance, fits=lambda unit: unit.children
    )
    struck_at = time.monotonic()
    unit.send(signal.SIGKILL, unit.children)
    unit.send(signal.SIGCONT)
    stage.watch.struck("process", strike.fault, messages, struck_at)
    return f"{len(unit.children)} of {unit}"


def kill_browser(stage: Stage, strike: Strike) -> str:
    """kill -9 of the Chromium of an instance."""
    unit, _ = stage.field.stop_busy_worker(
        strike.host, strike.chance, fits=lambda unit: unit.browsers
    )
    unit.send(signal.SIGKILL, unit.browsers)
    unit.send(signal.SIGCONT)
    return f"{len(unit.browsers)} of {unit}"


def _kill_between(stage: Stage, strike: Strike, where: Where) -> str:
    killed: list[str] = []

    def spring(holder: str) -> bool:
        units = stage.field.workers(strike.host)
        for name, unit in units.items():
            if holder.startswith(holder_prefix(strike.host, name)) and unit.main is not None:
                with contextlib.closing(stage.field.redis()) as client:
                    messages = held_by(look(client), holder)
                # A commit is a pool process's, if there is one: it or the whole instance dies.
                whole = where == "after a take" or strike.chance < 0.5 or not unit.children
                if whole:
                    stage.field.note_death(unit)
                struck_at = time.monotonic()
                unit.send(signal.SIGKILL, [unit.main] if whole else unit.children)
                stage.watch.struck("process", strike.fault, messages, struck_at)
                killed.append(f"{unit}{'' if whole else ', its child'}")
                return True
        return False

    if not stage.proxy.catch(where, spring, timeout_s=LASTS_S[strike.fault]):
        raise MissedError(f"nothing passed {where} on {strike.host}")
    return killed[-1]


def kill_at_take(stage: Stage, strike: Strike) -> str:
    """Between the reply to a take and the next command."""
    return _kill_between(stage, strike, "after a take")


def kill_at_commit(stage: Stage, strike: Strike) -> str:
    """Between the end of a body and its commit."""
    return _kill_between(stage, strike, "before a commit")


def kill_after_commit(stage: Stage, strike: Strike) -> str:
    """Between a commit and the worker's learning of it."""
    return _kill_between(stage, strike, "after a commit")


def freeze_worker(stage: Stage, strike: Strike) -> str:
    """SIGSTOP of an instance until others have what it held, then SIGCONT."""
    unit, messages = stage.field.stop_busy_worker(strike.host, strike.chance)
    stage.field.frozen.add(str(unit))
    struck_at = time.monotonic()
    stage.watch.struck("lease", strike.fault, messages, struck_at)
    try:
        wait_for_reaper(stage, strike.fault, struck_at + LASTS_S[strike.fault])
    finally:
        main = unit.main
        unit.send(signal.SIGCONT, [each for each in unit.processes if each != main])
        time.sleep(THAW_S)
        unit.send(signal.SIGCONT)
        stage.field.frozen.discard(str(unit))
    if stage.watch.open_victims(strike.fault):
        raise LabError(f"{unit} kept what it held for {LASTS_S[strike.fault]:g} s without a lease")
    return f"{unit} for {time.monotonic() - struck_at:.0f} s"


def _systemctl(stage: Stage, strike: Strike, verb: str) -> str:
    names = sorted(stage.field.workers(strike.host))
    if not names:
        raise MissedError(f"no instance runs on {strike.host}")
    name = names[int(strike.chance * len(names))]
    stage.field.on(strike.host, f"systemctl {verb} --no-block {name}")
    return f"{name} on {strike.host}"


def restart_unit(stage: Stage, strike: Strike) -> str:
    """As an operator does it."""
    return _systemctl(stage, strike, "restart")


def stop_unit(stage: Stage, strike: Strike) -> str:
    """As an operator does it; the scaler starts what it needs."""
    return _systemctl(stage, strike, "stop")


def kill_producer(stage: Stage, strike: Strike) -> str:
    """kill -9 while it submits."""
    return stage.producers.kill(strike.chance)

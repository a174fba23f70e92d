"""Deaths, stops and one long sleep of processes, wherever they are in their work."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterable

from chaos.deployed_lab import MissedError, holder_prefix
from chaos.fault_context import FaultContext, wait_for_reaper
from chaos.processes import Process, Unit
from chaos.proxy import Where
from chaos.recovery import HeldMessage, held_by, look
from chaos.schedule import LASTS_S, Strike
from lab.commands import LabError

#: Seconds between a frozen worker's children and their parent on the way back: the children try
#: to commit what has been given to others meanwhile; the parent has systemd's watchdog waiting.
THAW_S = 3.0


def kill_worker(context: FaultContext, strike: Strike) -> str:
    """kill -9 of an instance's main process."""
    unit, messages = context.lab.suspend_busy_worker(strike.host, strike.chance)
    context.lab.note_death(unit)
    _kill(context, strike, messages, unit, [unit.main] if unit.main else [])
    return f"{unit}, which held {len(messages)}"


def kill_child(context: FaultContext, strike: Strike) -> str:
    """kill -9 of the pool processes of an instance."""
    unit, messages = context.lab.suspend_busy_worker(
        strike.host, strike.chance, fits=lambda unit: unit.children
    )
    _kill(context, strike, messages, unit, unit.children)
    return f"{len(unit.children)} of {unit}"


def end_child(context: FaultContext, strike: Strike) -> str:
    """SIGTERM to the pool processes of an instance, in the midst of a body.

    No victim is noted: it closes its browser first.
    """
    unit, _ = context.lab.suspend_busy_worker(
        strike.host, strike.chance, fits=lambda unit: unit.children
    )
    unit.send_signal(signal.SIGTERM, unit.children)
    unit.send_signal(signal.SIGCONT)
    return f"{len(unit.children)} of {unit}"


def _kill(
    context: FaultContext,
    strike: Strike,
    messages: Iterable[HeldMessage],
    unit: Unit,
    processes: Iterable[Process],
) -> None:
    """kill -9 of some processes of a suspended unit, which held these; the others go on."""
    struck_at = time.monotonic()
    unit.send_signal(signal.SIGKILL, processes)
    unit.send_signal(signal.SIGCONT)
    context.watch.note_victims("process", strike.fault, messages, struck_at)


def kill_browser(context: FaultContext, strike: Strike) -> str:
    """kill -9 of the Chromium of an instance."""
    unit, _ = context.lab.suspend_busy_worker(
        strike.host, strike.chance, fits=lambda unit: unit.browsers
    )
    unit.send_signal(signal.SIGKILL, unit.browsers)
    unit.send_signal(signal.SIGCONT)
    return f"{len(unit.browsers)} of {unit}"


def _kill_between(context: FaultContext, strike: Strike, where: Where) -> str:
    killed: list[str] = []

    def spring(holder: str) -> bool:
        units = context.lab.workers(strike.host)
        for name, unit in units.items():
            if holder.startswith(holder_prefix(strike.host, name)) and unit.main is not None:
                with contextlib.closing(context.lab.redis()) as client:
                    messages = held_by(look(client), holder)
                # A commit is a pool process's, if there is one: it or the whole instance dies.
                whole = where == "after a take" or strike.chance < 0.5 or not unit.children
                if whole:
                    context.lab.note_death(unit)
                struck_at = time.monotonic()
                unit.send_signal(signal.SIGKILL, [unit.main] if whole else unit.children)
                context.watch.note_victims("process", strike.fault, messages, struck_at)
                killed.append(f"{unit}{'' if whole else ', its child'}")
                return True
        return False

    _have_worker(context, strike.host)
    if not context.proxy.catch(where, spring, timeout_s=LASTS_S[strike.fault]):
        raise MissedError(f"nothing passed {where} on {strike.host}")
    return killed[-1]


def _have_worker(context: FaultContext, host: str) -> None:
    """Somebody who takes tasks there: the scaler may need nobody on this host just now."""
    if not any(name.startswith("celery-browser@") for name in context.lab.workers(host)):
        context.lab.on(host, "systemctl start celery-browser@1.service")


def kill_at_take(context: FaultContext, strike: Strike) -> str:
    """Between the reply to a take and the next command."""
    return _kill_between(context, strike, "after a take")


def kill_at_commit(context: FaultContext, strike: Strike) -> str:
    """Between the end of a body and its commit."""
    return _kill_between(context, strike, "before a commit")


def kill_after_commit(context: FaultContext, strike: Strike) -> str:
    """Between a commit and the worker's learning of it."""
    return _kill_between(context, strike, "after a commit")


def freeze_worker(context: FaultContext, strike: Strike) -> str:
    """SIGSTOP of an instance until others have what it held, then SIGCONT."""
    unit, messages = context.lab.suspend_busy_worker(strike.host, strike.chance)
    context.lab.frozen.add(str(unit))
    struck_at = time.monotonic()
    context.watch.note_victims("lease", strike.fault, messages, struck_at)
    try:
        wait_for_reaper(context, strike.fault, struck_at + LASTS_S[strike.fault])
    finally:
        main = unit.main
        unit.send_signal(signal.SIGCONT, [each for each in unit.processes if each != main])
        time.sleep(THAW_S)
        unit.send_signal(signal.SIGCONT)
        context.lab.frozen.discard(str(unit))
    if context.watch.open_victims(strike.fault):
        raise LabError(f"{unit} kept what it held for {LASTS_S[strike.fault]:g} s without a lease")
    return f"{unit} for {time.monotonic() - struck_at:.0f} s"


def _systemctl(context: FaultContext, strike: Strike, verb: str) -> str:
    names = sorted(context.lab.workers(strike.host))
    if not names:
        raise MissedError(f"no instance runs on {strike.host}")
    name = names[int(strike.chance * len(names))]
    context.lab.on(strike.host, f"systemctl {verb} --no-block {name}")
    return f"{name} on {strike.host}"


def restart_unit(context: FaultContext, strike: Strike) -> str:
    """As an operator does it."""
    return _systemctl(context, strike, "restart")


def stop_unit(context: FaultContext, strike: Strike) -> str:
    """As an operator does it; the scaler starts what it needs."""
    return _systemctl(context, strike, "stop")


def kill_producer(context: FaultContext, strike: Strike) -> str:
    """kill -9 while it submits."""
    return context.producers.kill(strike.chance)

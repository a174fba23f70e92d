"""A host that ends at once, or that Redis cannot be reached from."""

from __future__ import annotations

import contextlib
import signal
import time

from chaos.deployed_lab import DeployedLab, MissedError
from chaos.fault_context import FaultContext, wait_for_reaper
from chaos.recovery import HeldMessage, held_by, look
from chaos.schedule import LASTS_S, Strike

#: Seconds after a cut until the host's workers have connected again: TCP asks ever more rarely.
CUT_RECOVERY_GRACE_S = 10.0
#: How often to look for a worker that holds something still when it is suspended.
_ATTEMPTS = 5


def kill_host(context: FaultContext, strike: Strike) -> str:
    """All of a host ends at once; it boots when others have what it held."""
    lab = context.lab
    messages = _suspend_busy_workers(lab, strike)
    struck_at = time.monotonic()
    lab.away.add(strike.host)
    try:
        lab.podman("kill", "--signal", "KILL", lab.container(strike.host))
        context.watch.note_victims("host", strike.fault, messages, struck_at)
        wait_for_reaper(context, strike.fault, struck_at + LASTS_S[strike.fault])
    finally:
        lab.podman("start", lab.container(strike.host))
        lab.until_reachable(strike.host)
        if strike.host == context.schedule.proxied:
            lab.lead_through(strike.host, context.proxy.port)
        lab.away.discard(strike.host)
    return f"{strike.host}, which held {len(messages)}"


def _suspend_busy_workers(lab: DeployedLab, strike: Strike) -> list[HeldMessage]:
    """By SIGSTOP, all of the host: what they hold now, they cannot commit before it ends.

    Raises:
        MissedError: none of them held anything.
    """
    for _ in range(_ATTEMPTS):
        lab.busy_worker(strike.host, strike.chance, timeout_s=30)
        units = list(lab.workers(strike.host).values())
        for unit in units:
            unit.send_signal(signal.SIGSTOP)
        with contextlib.closing(lab.redis()) as client:
            messages = held_by(look(client), f"{strike.host}:")
        if messages:
            return messages
        for unit in units:
            unit.send_signal(signal.SIGCONT)
    raise MissedError(f"every task on {strike.host} ended too soon")


def _cut(context: FaultContext, strike: Strike) -> str:
    lab = context.lab
    with contextlib.closing(lab.redis()) as client:
        with contextlib.suppress(MissedError):
            lab.busy_worker(strike.host, strike.chance)
        messages = held_by(look(client), f"{strike.host}:")
    struck_at = time.monotonic()
    lab.away.add(strike.host)
    try:
        with context.watch.outage(f"{strike.host}:", recovery_grace_s=CUT_RECOVERY_GRACE_S):
            try:
                lab.cut(strike.host, context.proxy.port)
                time.sleep(LASTS_S[strike.fault])
            finally:
                lab.mend(strike.host, context.proxy.port)
    finally:
        lab.away.discard(strike.host)
    return f"{strike.host}, which held {len(messages)}, {time.monotonic() - struck_at:.0f} s"


def cut_long(context: FaultContext, strike: Strike) -> str:
    """For longer than a lease."""
    return _cut(context, strike)


def cut_short(context: FaultContext, strike: Strike) -> str:
    """Not for long enough that anything is given up."""
    return _cut(context, strike)

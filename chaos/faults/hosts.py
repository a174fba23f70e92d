"""A host that ends at once, or that Redis cannot be reached from."""

from __future__ import annotations

import contextlib
import time

from chaos.field import MissedError
from chaos.recovery import held_by, look
from chaos.schedule import LASTS_S, Strike
from chaos.stage import Stage, wait_for_reaper

#: Seconds after a cut until the host's workers have connected again: TCP asks ever more rarely.
CUT_SETTLES_S = 10.0


def kill_host(stage: Stage, strike: Strike) -> str:
    """All of a host ends at once; it boots when others have what it held."""
    field = stage.field
    with contextlib.closing(field.redis()) as client:
        field.busy_worker(strike.host, strike.chance, timeout_s=30)
        messages = held_by(look(client), f"{strike.host}:")
    struck_at = time.monotonic()
    field.away.add(strike.host)
    try:
        field.podman("kill", "--signal", "KILL", field.container(strike.host))
        stage.watch.struck("host", strike.fault, messages, struck_at)
        wait_for_reaper(stage, strike.fault, struck_at + LASTS_S[strike.fault])
    finally:
        field.podman("start", field.container(strike.host))
        field.until_reachable(strike.host)
        if strike.host == stage.schedule.proxied:
            field.lead_through(strike.host, stage.proxy.port)
        field.away.discard(strike.host)
    return f"{strike.host}, which held {len(messages)}"


def _cut(stage: Stage, strike: Strike) -> str:
    field = stage.field
    with contextlib.closing(field.redis()) as client:
        with contextlib.suppress(MissedError):
            field.busy_worker(strike.host, strike.chance)
        messages = held_by(look(client), f"{strike.host}:")
    struck_at = time.monotonic()
    field.away.add(strike.host)
    try:
        with stage.watch.outage(f"{strike.host}:", settles_s=CUT_SETTLES_S):
            try:
                field.cut(strike.host, stage.proxy.port)
                time.sleep(LASTS_S[strike.fault])
            finally:
                field.mend(strike.host, stage.proxy.port)
    finally:
        field.away.discard(strike.host)
    return f"{strike.host}, which held {len(messages)}, {time.monotonic() - struck_at:.0f} s"


def cut_long(stage: Stage, strike: Strike) -> str:
    """For longer than a lease."""
    return _cut(stage, strike)


def cut_short(stage: Stage, strike: Strike) -> str:
    """Not for long enough that anything is given up."""
    return _cut(stage, strike)

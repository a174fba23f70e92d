"""Redis killed, restarted, stopped and full."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

from chaos.deployed_lab import CONTROL, MissedError
from chaos.fault_context import FaultContext
from chaos.schedule import LASTS_S, Strike
from lab.commands import LabError

#: Bytes that Redis may still take before it is full, and of a task that fills it.
FILL_BYTES, FILLER_BYTES = 3_000_000, 40_000
#: Seconds after which workers ask a Redis again that answers, and one more.
RECOVERY_GRACE_S = 3.0


@contextlib.contextmanager
def _outage(context: FaultContext) -> Iterator[None]:
    with context.watch.outage(recovery_grace_s=RECOVERY_GRACE_S):
        try:
            yield
        finally:
            context.lab.until_redis_answers()


def _redis_server(context: FaultContext) -> tuple[int, Callable[[signal.Signals], None]]:
    unit = context.lab.units(CONTROL.name)["redis-server.service"]
    main = unit.main
    if main is None:
        raise MissedError("Redis does not run")
    return main.pid, lambda number: unit.send_signal(number, [main])


def kill_redis(context: FaultContext, _strike: Strike) -> str:
    """kill -9; systemd starts it again."""
    pid, send = _redis_server(context)
    with _outage(context):
        send(signal.SIGKILL)
        time.sleep(0.5)
    return f"process {pid}"


def restart_redis(context: FaultContext, _strike: Strike) -> str:
    """As an operator does it."""
    with _outage(context):
        context.lab.on(CONTROL.name, "systemctl restart redis-server.service")
    return "by systemd"


def pause_redis(context: FaultContext, strike: Strike) -> str:
    """SIGSTOP, then SIGCONT: connections stay, and nothing answers."""
    _, send = _redis_server(context)
    with _outage(context):
        try:
            send(signal.SIGSTOP)
            time.sleep(LASTS_S[strike.fault])
        finally:
            send(signal.SIGCONT)
    return f"for {LASTS_S[strike.fault]:g} s"


def fill_redis(context: FaultContext, strike: Strike) -> str:
    """Its limit is moved to just above what it uses, and tasks are submitted until it refuses."""
    filler = {"html": f"<p>Full</p><!-- {'x' * FILLER_BYTES} -->"}
    deadline = time.monotonic() + LASTS_S[strike.fault]
    accepted, refused = 0, False
    with contextlib.closing(context.lab.redis()) as client:
        limit = client.config_get("maxmemory")["maxmemory"]
        used = int(client.info("memory")["used_memory"])
        try:
            client.config_set("maxmemory", used + FILL_BYTES)
            while time.monotonic() < deadline and not refused:
                refused = not context.send("analysis.run", filler, "filler")
                accepted += not refused
            full_at = time.monotonic()
            drained = False
            while refused and not drained and time.monotonic() < deadline:
                time.sleep(0.5)
                drained = context.send("analysis.run", filler, "filler")
        finally:
            client.config_set("maxmemory", str(limit))
    if not refused:
        raise MissedError(f"not full after {accepted} tasks")
    if not drained:
        raise LabError(f"a full Redis was not drained within {LASTS_S[strike.fault]:g} s")
    return f"with {accepted} tasks, drained after {time.monotonic() - full_at:.1f} s"

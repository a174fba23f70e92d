"""Redis killed, restarted, stopped and full."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator

from chaos.field import CONTROL, MissedError
from chaos.schedule import LASTS_S, Strike
from chaos.stage import Stage
from lab.commands import LabError

#: Bytes that Redis may still take before it is full, and of a task that fills it.
FILL_BYTES, FILLER_BYTES = 3_000_000, 40_000
#: Seconds after which workers ask a Redis again that answers, and one more.
SETTLES_S = 3.0


@contextlib.contextmanager
def _outage(stage: Stage) -> Iterator[None]:
    with stage.watch.outage(settles_s=SETTLES_S):
        try:
            yield
        finally:
            stage.field.until_redis_answers()


def _redis_server(stage: Stage) -> tuple[int, Callable[[signal.Signals], None]]:
    unit = stage.field.units(CONTROL.name)["redis-server.service"]
    main = unit.main
    if main is None:
        raise MissedError("Redis does not run")
    return main.pid, lambda number: unit.send(number, [main])


def kill_redis(stage: Stage, _strike: Strike) -> str:
    """kill -9; systemd starts it again."""
    pid, send = _redis_server(stage)
    with _outage(stage):
        send(signal.SIGKILL)
        time.sleep(0.5)
    return f"process {pid}"


def restart_redis(stage: Stage, _strike: Strike) -> str:
    """As an operator does it."""
    with _outage(stage):
        stage.field.on(CONTROL.name, "systemctl restart redis-server.service")
    return "by systemd"


def pause_redis(stage: Stage, strike: Strike) -> str:
    """SIGSTOP, then SIGCONT: connections stay, and nothing answers."""
    _, send = _redis_server(stage)
    with _outage(stage):
        try:
            send(signal.SIGSTOP)
            time.sleep(LASTS_S[strike.fault])
        finally:
            send(signal.SIGCONT)
    return f"for {LASTS_S[strike.fault]:g} s"


def fill_redis(stage: Stage, strike: Strike) -> str:
    """Its limit is moved to just above what it uses, and tasks are submitted until it refuses."""
    filler = {"html": f"<p>Full</p><!-- {'x' * FILLER_BYTES} -->"}
    deadline = time.monotonic() + LASTS_S[strike.fault]
    accepted, refused = 0, False
    with contextlib.closing(stage.field.redis()) as client:
        limit = client.config_get("maxmemory")["maxmemory"]
        used = int(client.info("memory")["used_memory"])
        try:
            client.config_set("maxmemory", used + FILL_BYTES)
            while time.monotonic() < deadline and not refused:
                refused = not stage.send("analysis.run", filler, "filler")
                accepted += not refused
            full_at = time.monotonic()
            drained = False
            while refused and not drained and time.monotonic() < deadline:
                time.sleep(0.5)
                drained = stage.send("analysis.run", filler, "filler")
        finally:
            client.config_set("maxmemory", str(limit))
    if not refused:
        raise MissedError(f"not full after {accepted} tasks")
    if not drained:
        raise LabError(f"a full Redis was not drained within {LASTS_S[strike.fault]:g} s")
    return f"with {accepted} tasks, drained after {time.monotonic() - full_at:.1f} s"

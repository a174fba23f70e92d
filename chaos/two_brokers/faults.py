"""What is done to the primary and to processes; a strike is undone whatever happens."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

from chaos.deployed_lab import CONTROL, MissedError
from chaos.processes import Unit
from chaos.two_brokers.schedule import Blow, Kind
from chaos.two_brokers.stand import HOSTED_PORT, Stand
from lab.commands import LabError

#: The host that cannot reach the primary in `host_cut`.
CUT_HOST = "worker1"
#: By kind, what is switched.
_SWITCHES: dict[Kind, dict[str, object]] = {
    "refused": {"reach": "refused"},
    "silent": {"reach": "silent"},
    "slow": {"slow_s": 5.0},
    "cut": {"cuts": 1_000_000},
}


@contextlib.contextmanager
def struck(stand: Stand, kind: Kind) -> Iterator[None]:
    """The primary fails in this way meanwhile.

    Raises:
        LabError: it did not.
    """
    if kind == "host_cut":
        end = (str(CONTROL.address), HOSTED_PORT)
        try:
            stand.lab.drop(CUT_HOST, end)
            yield
        finally:
            stand.lab.pass_again(CUT_HOST, end)
        return
    if kind == "limited":
        change: dict[str, object] = {"limit": stand.state()["used"]}
    else:
        change = _SWITCHES[kind]
    before = stand.switch(change)
    try:
        yield
        state = stand.state()
    finally:
        stand.heal()
    if kind == "cut" and state["cuts"] == change["cuts"]:
        raise LabError("no reply was cut")
    if kind == "limited" and state["used"] != before["used"]:
        raise LabError(f"{state['used']} requests were answered, of {before['used']}")


def deal(stand: Stand, blow: Blow) -> str:
    """What it met.

    Raises:
        MissedError: there was nothing to meet.
    """
    if blow.kind == "restart_hosted":
        stand.restart()
        return "all connections cut, all scripts forgotten"
    if blow.kind == "kill_scaler":
        return _kill_scaler(stand)
    return _kill_worker(stand, blow)


def _kill_scaler(stand: Stand) -> str:
    unit = stand.lab.units(CONTROL.name).get("swarm-scaler.service")
    if unit is None or unit.main is None:
        raise MissedError("the scaler does not run")
    unit.send_signal(signal.SIGKILL, [unit.main])
    deadline = time.monotonic() + 30
    while True:
        again = stand.lab.units(CONTROL.name).get("swarm-scaler.service")
        if again is not None and again.main is not None and again.main.pid != unit.main.pid:
            return f"process {unit.main.pid}"
        if time.monotonic() > deadline:
            raise LabError("the scaler did not come back within 30 s")
        time.sleep(0.2)


def _kill_worker(stand: Stand, blow: Blow) -> str:
    """kill -9 of an instance that holds something on its broker, or of its pool processes."""
    lab = stand.labs[blow.broker]

    def fits(unit: Unit) -> object:
        return blow.kind == "kill_worker" or unit.children

    unit, messages = lab.suspend_busy_worker(blow.host, blow.chance, fits=fits)
    if blow.kind == "kill_worker" and unit.main is not None:
        lab.note_death(unit)
        unit.send_signal(signal.SIGKILL, [unit.main])
    else:
        unit.send_signal(signal.SIGKILL, unit.children)
    unit.send_signal(signal.SIGCONT)
    return f"{unit}, which held {len(messages)}"

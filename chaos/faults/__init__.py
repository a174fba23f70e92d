"""What each fault does, and how it is undone: whatever happens, it is undone before it returns.

Each strikes once and returns what it struck, or raises MissedError when there was nothing to.
"""

from __future__ import annotations

from collections.abc import Callable

from chaos.fault_context import FaultContext
from chaos.faults import broker, hosts, processes, release
from chaos.schedule import Fault, Strike

FAULTS: dict[Fault, Callable[[FaultContext, Strike], str]] = {
    "kill_worker": processes.kill_worker,
    "kill_child": processes.kill_child,
    "end_child": processes.end_child,
    "kill_browser": processes.kill_browser,
    "kill_at_take": processes.kill_at_take,
    "kill_at_commit": processes.kill_at_commit,
    "kill_after_commit": processes.kill_after_commit,
    "restart_unit": processes.restart_unit,
    "stop_unit": processes.stop_unit,
    "kill_producer": processes.kill_producer,
    "freeze_worker": processes.freeze_worker,
    "kill_host": hosts.kill_host,
    "cut_long": hosts.cut_long,
    "cut_short": hosts.cut_short,
    "kill_redis": broker.kill_redis,
    "restart_redis": broker.restart_redis,
    "pause_redis": broker.pause_redis,
    "fill_redis": broker.fill_redis,
    "upgrade": release.upgrade,
}

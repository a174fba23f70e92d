"""One fleet from its start to a burst: what the daemon takes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from bench import processes
from bench.fleet import daemon, hosts
from bench.fleet.daemon import Daemon
from bench.fleet.flower import Flower, stand_in
from bench.fleet.host import BOOT_S, INSTANCES, POOL
from bench.fleet.hosts import Count, Fleet
from swarm.settings import ScalerSettings
from tests.loopback import wait_until

#: Starts that a burst asks for, where as many instances run.
BURST = 1000
_INTERVAL_S = ScalerSettings().interval_s
#: Seconds for hosts to be seen, for starts to come, and for more to come than there should.
_TIMEOUT_S = 120.0
_BURST_TIMEOUT_S = 60.0
_TOO_MANY_S = 2 * _INTERVAL_S + BOOT_S


@dataclass(frozen=True)
class Plan:
    """Seconds of each part."""

    window_s: float = 20.0
    """How long is looked on in each condition."""
    settle_s: float = 8.0
    """How long before."""


def measure(directory: Path, count: int, plan: Plan) -> dict[str, Any]:
    """The figures of so many hosts.

    Raises:
        RuntimeError: the scaler did what nothing had called for.
        TimeoutError: it did not do what something had.
    """
    directory.mkdir()
    credentials = directory / "credentials"
    credentials.mkdir()
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(credentials / "ssh-key"))
    with ExitStack() as stack:
        enter = stack.enter_context
        redis_url = enter(processes.redis_server(directory / "redis")).url
        flower = enter(stand_in(POOL))
        fleet = enter(hosts.simulated(count, key.export_public_key().decode()))
        fleet.listen()
        known_hosts = "\n".join(fleet.known_hosts)
        began = time.monotonic()
        scaler = enter(
            daemon.running(
                directory, fleet.hosts, known_hosts, flower=flower.url, redis_url=redis_url
            )
        )
        _wait_for_hosts(scaler, count)
        seen_after_s = time.monotonic() - began
        stage = _Stage(scaler, fleet, flower, count, plan)
        return {
            "hosts": count,
            "instances": count * INSTANCES,
            "all_seen_after_s": round(seen_after_s, 1),
            **stage.conditions(),
            "burst": stage.burst(),
            "rss_mb": round(scaler.peak_rss_mb(), 1),
            "stops": fleet.count().stopped,
        }


def _wait_for_hosts(scaler: Daemon, count: int) -> None:
    wait_until(
        lambda: scaler.hosts_up() == count, timeout_s=_TIMEOUT_S, what=f"{count} hosts to be seen"
    )


class _Stage:
    """A daemon that sees all of its hosts."""

    def __init__(
        self, scaler: Daemon, fleet: Fleet, flower: Flower, count: int, plan: Plan
    ) -> None:
        self._scaler = scaler
        self._fleet = fleet
        self._flower = flower
        self._count = count
        self._plan = plan

    def conditions(self) -> dict[str, Any]:
        """At rest; a tenth of the hosts changing in each interval; a tenth of them away, too."""
        at_rest = self._look_on()
        self._fleet.work(_INTERVAL_S)
        changing = self._look_on()
        self._fleet.lose_a_tenth()
        unreachable = self._look_on()
        self._fleet.rest()
        self._fleet.find()
        began = time.monotonic()
        _wait_for_hosts(self._scaler, self._count)
        back_after_s = round(time.monotonic() - began, 1)
        if started := len(self._fleet.count().started_at):
            raise RuntimeError(f"the scaler started {started} instances though nothing waited")
        return {
            "at_rest": at_rest,
            "changing": changing,
            "tenth_unreachable": unreachable,
            "all_back_after_s": back_after_s,
        }

    def _look_on(self) -> dict[str, float]:
        time.sleep(self._plan.settle_s)
        carried = self._fleet.carried()
        usage = self._scaler.watch(self._plan.window_s)
        carried = self._fleet.carried() - carried
        _check(self._fleet.count())
        return {
            "turns": usage.turns,
            "turn_p50_ms": round(1000 * usage.turn_s(0.5), 1),
            "turn_p95_ms": round(1000 * usage.turn_s(0.95), 1),
            "cpu_percent": round(usage.cpu_percent, 2),
            "cpu_wait_percent": round(100 * usage.waited_s / usage.seconds, 1),
            "rss_mb": round(usage.rss_mb, 1),
            "ssh_bytes_per_s": round(carried / usage.seconds),
        }

    def burst(self) -> dict[str, Any]:
        """As many tasks as a thousand instances are needed for, or as many as run already."""
        # On a machine so busy that hosts are not heard of for a while, idle instances are drained;
        # they are stopped, or at work again.
        wait_until(
            lambda: self._fleet.count().idle == 0,
            timeout_s=_TIMEOUT_S,
            what="that all instances are busy",
        )
        time.sleep(self._plan.settle_s)
        running = self._fleet.count().running
        needed = min(BURST, running)
        began = time.monotonic()
        self._flower.waiting = needed
        self._until(lambda count: len(count.started_at) >= needed, needed)
        # The tasks are taken as instances become ready; then nothing calls for any more.
        self._until(lambda count: count.taken >= needed, needed)
        time.sleep(_TOO_MANY_S)
        count = self._fleet.count()
        _check(count)
        if len(count.started_at) != needed:
            raise RuntimeError(f"{len(count.started_at)} starts for {needed} tasks")
        return {
            "running": running,
            "starts": needed,
            "first_start_s": round(count.started_at[0] - began, 3),
            "last_start_s": round(count.started_at[-1] - began, 3),
        }

    def _until(self, is_over: Callable[[Count], bool], needed: int) -> None:
        """Have the queue shrink as its tasks are taken."""

        def look() -> bool:
            count = self._fleet.count()
            self._flower.waiting = max(0, needed - count.taken)
            return is_over(count)

        wait_until(look, timeout_s=_BURST_TIMEOUT_S, what=f"{needed} starts")


def _check(count: Count) -> None:
    if count.wrong:
        raise RuntimeError(f"the scaler sent what must not come: {', '.join(count.wrong[:5])}")

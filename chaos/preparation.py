"""The lab before a run and after it: at rest, with the proxy, and the file that is the witness."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from chaos.deployed_lab import CONTROL, HERE, REDIS_PORT, WORKERS, DeployedLab
from chaos.faults.release import remove_next
from chaos.proxy import Shas, TrapProxy
from chaos.recovery import look
from chaos.schedule import Schedule
from lab.commands import LabError
from lab.pages import DEFAULT_PORT

QUEUES = ("browser", "analysis")
REST_TIMEOUT_S = 90.0
#: Of roles/redis. What was set when a run began may be the 0 of one that was killed.
_DEPLOYED_REWRITE_PERCENTAGE = 100


@contextlib.contextmanager
def lab_prepared(lab: DeployedLab) -> Iterator[None]:
    """At rest before; as it was deployed afterwards."""
    lab.until_redis_answers()
    require_pages()
    until_at_rest(lab)
    try:
        yield
    finally:
        for host in WORKERS:
            remove_next(lab, host)
            lab.on(host, "systemctl reset-failed 'celery-*' || true")
        keep_rewriting(lab)


def keep_rewriting(lab: DeployedLab) -> None:
    """Redis may rewrite its append-only file again."""
    with contextlib.closing(lab.redis()) as client:
        client.config_set("auto-aof-rewrite-percentage", _DEPLOYED_REWRITE_PERCENTAGE)


def require_pages() -> None:
    """Without them every page fails fast, and a run would prove little.

    Raises:
        LabError: nobody serves them.
    """
    try:
        socket.create_connection((str(CONTROL.address), DEFAULT_PORT), timeout=2).close()
    except OSError as exc:
        raise LabError(
            f"the lab serves no pages ({exc}): "
            "run `make demo`, `make molecule` or the playbook lab/pages.yml"
        ) from exc


def until_at_rest(lab: DeployedLab) -> None:
    """Until nothing is left of what ran here before, some of which the reaper may have to return.

    Raises:
        LabError: something stays.
    """
    deadline = time.monotonic() + REST_TIMEOUT_S
    while left := leftovers(lab):
        if time.monotonic() > deadline:
            raise LabError(f"the lab is not at rest after {REST_TIMEOUT_S:g} s: {left}")
        time.sleep(0.5)


@contextlib.contextmanager
def trap_proxy(lab: DeployedLab, schedule: Schedule) -> Iterator[TrapProxy]:
    """In front of one host's workers, which are led to it and away again."""
    restart = "systemctl try-restart 'celery-*'"
    shas = deployed_scripts(lab)
    with TrapProxy(HERE, (str(CONTROL.address), REDIS_PORT), shas) as proxy:
        try:
            lab.lead_through(schedule.proxied, proxy.port)
            lab.on(schedule.proxied, restart)
            yield proxy
        finally:
            lab.lead_straight(schedule.proxied, proxy.port)
            lab.on(schedule.proxied, restart)


def deployed_scripts(lab: DeployedLab) -> Shas:
    """Of the release on the lab, which need not be that of this tree."""
    code = "from swarm.delivery.scripts import *; print(TAKE.sha, COMMIT.sha)"
    take, commit = lab.on(CONTROL.name, f"/opt/swarm/current/bin/python -c '{code}'").split()
    return Shas(take, commit)


def begin_append_only_file(lab: DeployedLab) -> str:
    """Start a new append-only file; the name of its base tells it from later ones."""
    with contextlib.closing(lab.redis()) as client:
        client.bgrewriteaof()
        deadline = time.monotonic() + 30
        while True:
            told: Any = client.info("persistence")
            if not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]:
                break
            if time.monotonic() > deadline:
                raise LabError("Redis did not rewrite its append-only file within 30 s")
            time.sleep(0.1)
    lab.keep_append_only_file()
    return base_of(lab)


def base_of(lab: DeployedLab) -> str:
    """The file that Redis reads before what was appended; each rewrite makes a new one."""
    return lab.on(CONTROL.name, f"ls {lab.append_only}/*.base.*")


def read_append_only_file(lab: DeployedLab, base: str) -> bytes:
    """What was appended since `begin_append_only_file`.

    Raises:
        LabError: it was rewritten, so that it no longer tells everything.
    """
    if base_of(lab) != base:
        raise LabError("Redis has rewritten its append-only file: the witness is gone")
    ssh = ["ssh", "-F", str(lab.state.ssh_config), CONTROL.name]
    done = subprocess.run(
        [*ssh, f"cat $(ls -v {lab.append_only}/*.incr.aof)"],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def leftovers(lab: DeployedLab) -> dict[str, int]:
    """What waits, is scheduled, held, or dead; nothing at rest."""
    with contextlib.closing(lab.redis()) as client:
        waiting = sum(int(client.llen(key)) for queue in QUEUES for key in queue_keys(queue))
        scheduled = sum(
            int(client.zcard(f"swarm:scheduled:{key}"))
            for queue in QUEUES
            for key in queue_keys(queue)
        )
        counts = {
            "waiting": waiting,
            "scheduled": scheduled,
            "held": len(look(client)),
            "dead": int(client.hlen("swarm:dead")),
        }
    return {name: count for name, count in counts.items() if count}


def queue_keys(queue: str) -> list[str]:
    """The lists of a queue, one for each of kombu's priorities."""
    return [queue, *(f"{queue}\x06\x16{priority}" for priority in (3, 6, 9))]

"""`swarm-give-back`: what a unit's ExecStopPost runs when its worker is gone, however it went.

systemd has ended every process of the unit by then, so whatever this invocation holds has lost
its worker. It must not hang or fail a stop: if the broker is away, the instance's next start or
the reaper does it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

import redis

from swarm.brokers import connect
from swarm.delivery.holder import name_holder
from swarm.delivery.release import release
from swarm.environment import read_broker
from swarm.errors import ConfigError


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Give back and say so; 0 even when the broker is away, 2 for a wrong set-up."""
    try:
        broker = read_broker(environ)
    except ConfigError as exc:
        print(f"swarm-give-back: {exc}", file=sys.stderr)
        return exc.exit_status
    name = name_holder(environ)
    if not name.is_unit:
        print("swarm-give-back: runs in a unit's ExecStopPost= only", file=sys.stderr)
        return 2
    reason = _reason(environ)
    try:
        with connect(broker) as client:
            returned, dead = release(client, str(name), "died", reason, choice="all")
    except redis.RedisError as exc:
        print(
            f"nothing given back yet, the next start or the reaper does it: {exc}", file=sys.stderr
        )
        return 0
    if returned or dead:
        print(f"given back: {returned} to their queues, {dead} to the dead letters ({reason})")
    return 0


def _reason(environ: Mapping[str, str]) -> str:
    """How the worker ended, in systemd's words (systemd.exec(5), SERVICE_RESULT)."""
    unit = f"celery-{environ.get('SWARM_POOL')}@{environ.get('SWARM_INSTANCE')}"
    how = environ.get("SERVICE_RESULT", "unknown")
    status = environ.get("EXIT_STATUS", "")
    return f"{unit} on {environ.get('SWARM_HOST')} ended: {how} {status}".rstrip()


if __name__ == "__main__":
    sys.exit(main())

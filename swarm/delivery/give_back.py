"""`swarm-give-back`: what a unit's ExecStopPost runs when its worker is gone, however it went.

systemd has ended every process of the unit by then, so whatever this invocation holds has lost
its worker. It must not hang or fail a stop: if the broker is away, the instance's next start or
the reaper does it.

systemd 252 gives `LoadCredential=` to a unit's main process only (seen on Debian 12), so this one
starts as root, reads the credential, and goes on as the worker's user before it speaks to anybody.
"""

from __future__ import annotations

import argparse
import os
import pwd
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import redis

from swarm.brokers import VARIABLES, connect
from swarm.delivery.holder import name_holder
from swarm.delivery.release import Mode, release
from swarm.delivery.spool import Spool
from swarm.environment import name_served_broker, read_broker, read_settings
from swarm.errors import ConfigError


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Give back and say so; 0 even when the broker is away, 2 for a wrong set-up."""
    parser = argparse.ArgumentParser(prog="swarm-give-back", description="Run by ExecStopPost=.")
    parser.add_argument("--credential", type=Path, help="file with the URL of the pool's broker")
    parser.add_argument("--user", help="whom to become once it is read")
    arguments = parser.parse_args(argv)
    name = name_holder(environ)
    if not name.is_unit:
        print("swarm-give-back: runs in a unit's ExecStopPost= only", file=sys.stderr)
        return 2
    try:
        # A pool that was deployed away is not in config.yaml any more: its unit names the broker.
        settings = read_settings(environ)
        served = name_served_broker(settings, environ) or "primary"
        if arguments.credential and not environ.get(VARIABLES[served]):
            url = arguments.credential.read_text(encoding="utf-8").strip()
            environ = {**environ, VARIABLES[served]: url}
        if arguments.user and os.geteuid() == 0:
            _become(arguments.user)
        broker = read_broker(environ, name=served)
    except (ConfigError, OSError, KeyError) as exc:
        print(f"swarm-give-back: {exc}", file=sys.stderr)
        return 2
    reason = _reason(environ)
    # A worker that stopped as it was told has let its tasks end; the broker was away when it gave
    # the rest back itself.
    stopped = environ.get("SERVICE_RESULT") == "success"
    mode: Mode = "return" if stopped else "died"
    try:
        with connect(broker) as client:
            # What is done need not be done again.
            Spool(settings.worker.spool_directory, served).send(client)
            returned, dead = release(client, str(name), mode, reason, choice="all")
    except redis.RedisError as exc:
        print(
            f"nothing given back yet, the next start or the reaper does it: {exc}", file=sys.stderr
        )
        return 0
    if returned or dead:
        print(f"given back: {returned} to their queues, {dead} to the dead letters ({reason})")
    return 0


def _become(user: str) -> None:
    """Give up being root for good. Raises KeyError when there is no such user."""
    entry = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def _reason(environ: Mapping[str, str]) -> str:
    """How the worker ended, in systemd's words (systemd.exec(5), SERVICE_RESULT)."""
    unit = f"celery-{environ.get('SWARM_POOL')}@{environ.get('SWARM_INSTANCE')}"
    how = environ.get("SERVICE_RESULT", "unknown")
    status = environ.get("EXIT_STATUS", "")
    return f"{unit} on {environ.get('SWARM_HOST')} ended: {how} {status}".rstrip()


if __name__ == "__main__":
    sys.exit(main())

"""`swarm-send-ends`: tells the brokers of tasks whose ends this host's workers left on the disk.

A running worker does that by itself when it connects. This is for a host where none runs any more
when the broker is back: systemd starts it as long as there is something to send.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

import redis

from swarm.brokers import VARIABLES, Broker, BrokerName, classify, connect, refusal
from swarm.delivery.spool import Spool
from swarm.environment import read_broker, read_settings
from swarm.errors import ConfigError

#: Bounds of the pause between two attempts, in seconds; less than a lease, after which the reaper
#: gives back what nobody has told of.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 30.0


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Try until nothing is left; 2 for a wrong set-up, which trying again does not mend."""
    try:
        directory = read_settings(environ).worker.spool_directory
    except ConfigError as exc:
        print(f"swarm-send-ends: {exc}", file=sys.stderr)
        return exc.exit_status
    spools = {name: Spool(directory, name) for name in VARIABLES}
    brokers, status = {}, 0
    for name, spool in spools.items():
        try:
            if spool.tags():
                brokers[name] = read_broker(environ, name=name)
        except ConfigError as exc:
            # The other broker's ends are sent all the same.
            print(f"swarm-send-ends: {exc}", file=sys.stderr, flush=True)
            status = exc.exit_status
    _send_all(spools, brokers)
    return status


def _send_all(spools: Mapping[BrokerName, Spool], brokers: Mapping[BrokerName, Broker]) -> None:
    pause_s, said = _FIRST_PAUSE_S, dict.fromkeys(brokers, "")
    while left := [name for name in brokers if spools[name].tags()]:
        for name in left:
            sent, why = _send(spools[name], brokers[name])
            if sent:
                print(f"told the {name} broker of {sent} ended tasks", flush=True)
            if why and why != said[name]:
                print(f"the {name} broker is still away: {why}", file=sys.stderr, flush=True)
            said[name] = why
        if any(said.values()):
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _send(spool: Spool, broker: Broker) -> tuple[int, str]:
    """How many ends were sent, and why no more."""
    try:
        with connect(broker) as client:
            return spool.send(client), ""
    except (redis.RedisError, OSError) as exc:
        verdict = classify(exc)
        refused = verdict.state == "refused"
        return 0, str(refusal(broker, verdict) if refused else exc)


if __name__ == "__main__":
    sys.exit(main())

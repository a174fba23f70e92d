"""The scaler's accounts of a metered broker against the service's own. `make bench-budget`.

The stand-in for a hosted Redis (lab.hosted) counts what it is asked. Two instances, Flower, the
scaler and a producer that lives on work over it at a steady pace. At the end the scaler's figures
are held against the stand-in's: what was used, and what both expect by the reset if it goes on so.

The last line is one JSON object; ratios are the scaler's figure over the stand-in's.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from bench.processes import TIMEOUT_S, Fleet, redis_server, tell_to_stop
from lab.hosted import HostedRedis, make_certificates
from swarm.brokers import Brokers, parse_broker
from swarm.celery_app import celery_configuration
from swarm.client import Client
from swarm.config import load_settings
from swarm.delivery.app import Brokerage, DeliveryCelery
from tests.loopback import PASSWORD

LIMIT = "500000/month"
PAYLOAD = {"html": "<p>x</p>"}
#: The scaler reads Flower's count every 30 s, and producers tell theirs with their next task.
_SETTLE_S = 35.0
_LEAST_MINUTES = 6.0


def main() -> int:
    """Run; 0 unless something broke."""
    parser = argparse.ArgumentParser(prog="bench.budget", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to work (60)")
    parser.add_argument("--tasks-per-minute", type=float, default=20.0, help="the pace (20)")
    options = parser.parse_args()
    if options.minutes < _LEAST_MINUTES:
        parser.error(f"--minutes: {_LEAST_MINUTES:g} at least, as no rate is told before")
    with tempfile.TemporaryDirectory(prefix="bench-budget-") as directory:
        figures = measure(Path(directory), 60 * options.minutes, options.tasks_per_minute)
    for component, used in figures["by_component"].items():
        print(f"{component:>10} {used:>7,}")
    print(json.dumps(figures))
    return 0


def measure(directory: Path, seconds: float, tasks_per_minute: float) -> dict[str, Any]:
    """Work for so long at this pace; both counts afterwards."""
    with ExitStack() as stack:
        enter = stack.enter_context
        behind = enter(redis_server(directory / "redis"))
        certificates = make_certificates(directory / "certificates")
        tls = certificates.server_context(ask_clients=False)
        service = enter(HostedRedis(("127.0.0.1", behind.port), tls=tls))
        url = service.url("", PASSWORD, ssl_ca_certs=certificates.authority)
        fleet = Fleet.configure(directory / "fleet", instances=2, budget=LIMIT)
        instances = {number: enter(fleet.instance(url, number)) for number in (1, 2)}
        flower = enter(fleet.flower(url))
        scaler = enter(fleet.scaler(url, instances))
        client = _client(fleet, url)
        began, used_before = time.monotonic(), service.used
        done = _work(client, began + seconds, 60 / tasks_per_minute)
        time.sleep(_SETTLE_S)
        hours = (time.monotonic() - began) / 3600
        used, budget = service.used, _budget(fleet)
        tell_to_stop([*instances.values(), flower, scaler])
    per_hour = (used - used_before) / hours
    left = datetime.fromisoformat(budget["resets_at"]) - datetime.now(UTC)
    expected = used + per_hour * (left / timedelta(hours=1))
    return {
        "hours": round(hours, 3),
        "tasks": done,
        "used": budget["used"],
        "service_used": used,
        "used_ratio": round(budget["used"] / used, 4),
        "per_hour": budget["per_hour"],
        "service_per_hour": round(per_hour, 1),
        "expected": budget["expected"],
        "service_expected": round(expected),
        "expected_ratio": round(budget["expected"] / expected, 4),
        "by_component": budget["by_component"],
    }


def _client(fleet: Fleet, url: str) -> Client:
    broker = parse_broker("primary", url, variable="REDIS_URL")
    brokerage = Brokerage(Brokers(broker), metered=frozenset({"primary"}))
    app = DeliveryCelery("producer", set_as_current=False, read_brokerage=lambda: brokerage)
    app.config_from_object(celery_configuration(load_settings(fleet.config), broker))
    return Client(app)


def _work(client: Client, until: float, pause_s: float) -> int:
    """One task after the other, each waited for; how many were done."""
    done = 0
    begun = time.monotonic()
    while time.monotonic() < until:
        task_id = client.submit("analysis", PAYLOAD)
        if client.result(task_id, wait_s=TIMEOUT_S).state != "done":
            raise RuntimeError(f"task {task_id} was not done")
        done += 1
        time.sleep(max(0.0, begun + done * pause_s - time.monotonic()))
    return done


def _budget(fleet: Fleet) -> dict[str, Any]:
    """What the scaler says of the broker in its last turn."""
    document = json.loads((fleet.directory / "state" / "status.json").read_text(encoding="utf-8"))
    budget: dict[str, Any] = document["brokers"]["primary"]["budget"]
    return budget


if __name__ == "__main__":
    raise SystemExit(main())

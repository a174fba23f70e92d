"""`swarm status`: the swarm as the scaler last saw it."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from swarm.environment import read_settings
from swarm.errors import ConfigError, Problem
from swarm.settings import Settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="The scaler's last turn as JSON.")
def status(as_json: bool) -> None:  # noqa: FBT001 - a click option
    """Show pools, hosts and instances as the scaler last saw them."""
    settings = read_settings()
    path = settings.scaler.state_directory / "status.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(
            [
                Problem(
                    str(path),
                    "no status of a scaler",
                    "`swarm status` to run on the host where swarm-scaler.service is active",
                )
            ]
        ) from exc
    if as_json:
        click.echo(json.dumps(document))
    else:
        _print_status(document, settings)


def _print_status(document: dict[str, Any], settings: Settings) -> None:
    age_s = time.time() - document["written_at"]
    late = " (is swarm-scaler running?)" if age_s > 3 * settings.scaler.interval_s + 10 else ""
    click.echo(f"as of {age_s:.0f} s ago{late}")
    # A scaler of an earlier release tells of none.
    brokers = document.get("brokers", {})
    if len(brokers) > 1:
        click.echo("")
        for name, broker in brokers.items():
            click.echo(f"the {name} broker {_condition(broker)}")
    orders = document.get("orders", [])
    if orders:
        click.echo("\n" + "\n".join(order["text"] for order in orders))
    for name, pool in document["pools"].items():
        _print_pool(name, pool, document["hosts"])
    for host, report in document["hosts"].items():
        if not report["answers"]:
            click.echo(f"\n{host} does not answer: {report['reason']}")


def _print_pool(name: str, pool: dict[str, Any], hosts: dict[str, Any]) -> None:
    waiting = "unknown" if pool["waiting"] is None else pool["waiting"]
    click.echo(
        f"\n{name}: {pool['running']} running, {pool['desired']} desired, {waiting} waiting"
        f" ({pool['reason']})"
    )
    for host, report in hosts.items():
        for instance in report["instances"]:
            if instance["pool"] == name:
                click.echo(
                    f"  celery-{name}@{instance['number']} on {host}: {instance['state']}, "
                    f"{instance['active']} active, {instance['tasks_ended']} ended"
                    + (f" ({instance['trouble']})" if instance["trouble"] else "")
                )


def _condition(broker: dict[str, Any]) -> str:
    if broker["answers"]:
        return "answers"
    gives_way = ", its pools give way" if broker["gives_way"] else ""
    return f"is down for {broker['down_for_s']:.0f} s{gives_way} ({broker['reason']})"

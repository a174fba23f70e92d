"""`swarm brokers`: which brokers are set up, and whether each lets us in."""

from __future__ import annotations

import json

import click

from swarm.environment import read_brokers
from swarm.errors import BrokerAwayError, ConfigError, Problem


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def brokers(as_json: bool) -> None:  # noqa: FBT001 - a click option
    """Ask each broker once: two or three requests on each.

    Exit status: 0 all are well, 2 one refuses us, 3 one is away, slow or at its limit.
    """
    from swarm.brokers import ask

    asked = {broker: ask(broker) for broker in read_brokers()}
    if as_json:
        answer = {
            broker.name: {
                "address": broker.address,
                "state": verdict.state,
                "reason": verdict.reason,
                "seconds": round(seconds, 3),
            }
            for broker, (verdict, seconds) in asked.items()
        }
        click.echo(json.dumps(answer))
    else:
        for broker, (verdict, seconds) in asked.items():
            said = f" ({verdict.reason})" if verdict.reason else ""
            click.echo(
                f"{broker.name}: {verdict.state} after {1000 * seconds:.0f} ms, "
                f"{broker.address}{said}"
            )
    problems = [
        Problem(broker.variable, f"{broker.address} ({verdict.reason})", verdict.advice)
        for broker, (verdict, _) in asked.items()
        if verdict.state == "refused"
    ]
    if problems:
        raise ConfigError(problems)
    away = [
        f"{broker.variable}: {broker.address} is {verdict.state}: {verdict.reason}"
        for broker, (verdict, _) in asked.items()
        if verdict.state != "ok"
    ]
    if away:
        raise BrokerAwayError("\n".join(away))

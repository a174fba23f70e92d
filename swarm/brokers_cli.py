"""`swarm brokers`: which brokers are set up, and whether each lets us in."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import click

from swarm.environment import read_brokers, read_settings
from swarm.errors import BrokerAwayError, ConfigError


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
def brokers(as_json: bool) -> None:  # noqa: FBT001 - a click option
    """Ask each broker once: two or three requests on each. Tell what the scaler knows of them.

    Exit status: 0 all are well, 2 one refuses us, 3 one is away, slow or at its limit.
    """
    from swarm.brokers import ask, refusal

    asked = {broker: ask(broker) for broker in read_brokers()}
    seen = _seen_by_scaler()
    if as_json:
        answer = {
            broker.name: {
                "address": broker.address,
                "state": verdict.state,
                "reason": verdict.reason,
                "seconds": round(seconds, 3),
                "scaler": seen.get(broker.name),
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
            for line in describe(seen.get(broker.name)):
                click.echo(f"  {line}")
    problems = [
        refusal(broker, verdict)
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


def _seen_by_scaler() -> dict[str, Any]:
    """By broker, what the scaler on this host last wrote of it; nothing elsewhere."""
    try:
        path = read_settings().scaler.state_directory / "status.json"
        document = json.loads(path.read_text(encoding="utf-8"))
        brokers = document.get("brokers", {})
        age_s = round(time.time() - document["written_at"])
    except (ConfigError, OSError, ValueError, KeyError, AttributeError):
        return {}
    return {name: {**broker, "age_s": age_s} for name, broker in brokers.items()}


def describe(seen: Any) -> Iterator[str]:
    """What the scaler knows of a broker, in lines."""
    if not seen:
        return
    how = "answers" if seen["answers"] else f"is down for {seen['down_for_s']:.0f} s"
    reason = f" ({seen['reason']})" if seen["reason"] else ""
    yield f"to the scaler it {how}, {seen['age_s']} s ago{reason}"
    budget = seen.get("budget")
    if not budget:
        return
    share = 100 * budget["used"] / budget["limit"]
    resets = f"{datetime.fromisoformat(budget['resets_at']):%Y-%m-%d %H:%M} UTC"
    yield f"{budget['used']:,} of {budget['limit']:,} requests used ({share:.1f} %) until {resets}"
    if budget["per_hour"] is not None:
        line = f"{budget['per_hour']:,.0f} an hour: {budget['expected']:,} by then"
        if budget["exhausted_at"]:
            at = datetime.fromisoformat(budget["exhausted_at"])
            line += f"; used up on {at:%Y-%m-%d %H:%M} UTC"
        yield line
    parts = ", ".join(f"{name} {used:,}" for name, used in sorted(budget["by_component"].items()))
    if parts:
        yield f"by {parts}"
    if not budget["takes_tasks"]:
        yield "it takes no more tasks: what remains is for those that it has"

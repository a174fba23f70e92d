"""`swarm cancel`: keep a task from being started, or have it given up where it runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from swarm.environment import read_brokers, read_settings
from swarm.errors import ConfigError, SwarmError
from swarm.settings import Settings

if TYPE_CHECKING:
    from swarm.cancellation import Found

#: What goes through to the hosts, where no shell sees it either.
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")


@click.command()
@click.argument("task_id", metavar="ID")
def cancel(task_id: str) -> None:
    """Cancel a task, queued or running; exit 1 when it is not cancelled by that.

    On the controller, as root: it goes through queues and asks every worker host. A browser task
    that runs ends as CANCELLED; other tasks that run cannot be interrupted.
    """
    if not _TASK_ID.fullmatch(task_id):
        expected = "a task's id: letters, digits, and . _ : - between them"
        raise ConfigError.of("ID", repr(task_id), expected)
    from swarm.cancellation import Cancellation
    from swarm.celery_app import app
    from swarm.client import Client

    settings = read_settings()
    app.finalize()
    _ = app.conf.broker_url
    cancellation = Cancellation(
        Client(app),
        waits=lambda wanted: _waits(wanted, settings),
        ask_hosts=lambda wanted: asyncio.run(ask_hosts(wanted, settings)),
    )
    verdict = cancellation.cancel(task_id)
    click.echo(f"{task_id}: {verdict.message}", err=not verdict.done)
    if not verdict.done:
        sys.exit(1)


def _waits(task_id: str, settings: Settings) -> bool:
    """Whether it lies in a queue of any broker.

    Raises:
        BrokerAwayError, ConfigError: one that may have it did not say, or refuses us.
    """
    import redis

    from swarm.brokers import connect, failure
    from swarm.delivery.find import waits

    silent: SwarmError | None = None
    # A producer, as whom people submit tasks, does not see what waits.
    for broker in read_brokers(credential="redis-url-scaler"):
        try:
            with connect(broker) as client:
                if waits(client, task_id, settings.queues(broker=broker.name)):
                    return True
        except redis.RedisError as exc:
            silent = silent or failure(broker, exc)
    if silent is not None:
        raise silent
    return False


async def ask_hosts(task_id: str, settings: Settings) -> Sequence[Found]:
    """Have every instance of every host give the task up, at once."""
    from swarm.scaler.adapters.commands import make_runner
    from swarm.scaler.adapters.known_hosts import KnownHosts

    known_hosts = KnownHosts(settings.scaler.known_hosts)
    runners = {
        name: make_runner(host, settings.scaler, os.environ, known_hosts=known_hosts)
        for name, host in settings.hosts.items()
    }
    try:
        answers = await asyncio.gather(
            *(_ask_host(name, runner, task_id) for name, runner in runners.items())
        )
    finally:
        await asyncio.gather(*(runner.close() for runner in runners.values()))
    return [found for answer in answers for found in answer]


async def _ask_host(name: str, runner: Any, task_id: str) -> list[Found]:
    from swarm.cancellation import Found
    from swarm.scaler.ports import CommandError

    try:
        instances = json.loads(await runner.run("cancel", task_id))["instances"]
        return [
            Found(
                f"celery-{instance['pool']}@{instance['number']} on {name}",
                instance.get("outcome", "error"),
                str(instance.get("error", "")),
            )
            for instance in instances
        ]
    except CommandError as exc:
        return [Found(name, "error", str(exc))]
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        return [Found(name, "error", f"swarm-unitctl's answer is not understood: {exc}")]

"""`swarm dead`: what is done with tasks that could not be done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from swarm.environment import read_broker
from swarm.errors import BrokerAwayError, ConfigError, Problem

if TYPE_CHECKING:
    from swarm.delivery.dead import DeadLetter, DeadLetters


@click.group()
def dead() -> None:
    """Tasks that could not be done: three workers died under them, unknown here, or unreadable."""


_NAMES = click.argument("names", metavar="[ID]...", nargs=-1)
_ALL = click.option("--all", "everything", is_flag=True, help="Every dead letter.")


@dead.command("list")
@click.option("--json", "as_json", is_flag=True, help="Whole entries, a line each.")
def dead_list(as_json: bool) -> None:  # noqa: FBT001 - a click option
    """List them, the oldest first."""
    with _dead_letters() as letters:
        for letter in letters.all():
            if as_json:
                click.echo(json.dumps(asdict(letter), default=str))
            else:
                click.echo(
                    f"{letter.task_id or letter.tag}  {letter.at:%Y-%m-%d %H:%M:%S}  "
                    f"{letter.task or '?'} in {letter.queue}: {letter.reason}"
                )


@dead.command("show")
@click.argument("name", metavar="ID")
def dead_show(name: str) -> None:
    """Show one by its task's id or its own tag, with its arguments and its history."""
    with _dead_letters() as letters:
        letter = letters.find(name)
    document = {**asdict(letter), "queue": letter.queue, "arguments": letter.arguments()}
    click.echo(json.dumps(document, indent=2, default=str))


@dead.command("replay")
@_NAMES
@_ALL
def dead_replay(names: tuple[str, ...], everything: bool) -> None:  # noqa: FBT001 - a click option
    """Put them back into their queues, to be tried anew."""
    with _dead_letters() as letters:
        for letter in _chosen(letters, names, everything=everything):
            if letters.replay(letter):
                click.echo(f"{letter.task_id or letter.tag} is back in {letter.queue}")


@dead.command("drop")
@_NAMES
@_ALL
def dead_drop(names: tuple[str, ...], everything: bool) -> None:  # noqa: FBT001 - a click option
    """Delete them for good."""
    with _dead_letters() as letters:
        for letter in _chosen(letters, names, everything=everything):
            if letters.drop(letter):
                click.echo(f"{letter.task_id or letter.tag} is deleted")


def _chosen(letters: DeadLetters, names: Sequence[str], *, everything: bool) -> list[DeadLetter]:
    """All are found before any is touched."""
    if everything == bool(names):
        expected = "the ids of dead letters, or --all"
        raise ConfigError([Problem("ID", "both" if names else "nothing", expected)])
    return letters.all() if everything else [letters.find(name) for name in names]


@contextmanager
def _dead_letters() -> Iterator[DeadLetters]:
    import redis

    from swarm.brokers import connect
    from swarm.delivery.dead import DeadLetters

    # A producer, as whom people submit tasks, has no right to them.
    broker = read_broker(credential="redis-url-scaler")
    try:
        with connect(broker) as client:
            yield DeadLetters(client)
    except redis.ResponseError as exc:
        raise BrokerAwayError(f"{broker.address} refused: {exc}") from exc
    except redis.RedisError as exc:
        raise BrokerAwayError(f"{broker.address} did not answer: {exc}") from exc

"""`swarm dead`: what is done with tasks that could not be done."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from swarm.environment import read_brokers
from swarm.errors import ConfigError, Problem, SwarmError

if TYPE_CHECKING:
    from swarm.brokers import BrokerName
    from swarm.delivery.dead import DeadLetter, DeadLetters


@click.group()
def dead() -> None:
    """Tasks that could not be done: three workers died under them, unknown here, or unreadable."""


_NAMES = click.argument("names", metavar="[ID]...", nargs=-1)
_ALL = click.option("--all", "everything", is_flag=True, help="Every dead letter.")


@dead.command("list")
@click.option("--json", "as_json", is_flag=True, help="Whole entries, a line each.")
def dead_list(as_json: bool) -> None:  # noqa: FBT001 - a click option
    """List them, the oldest first, broker by broker."""
    with _dead_letters() as lists:
        for broker, letters in lists.items():
            for letter in letters.all():
                if as_json:
                    entry = {**asdict(letter), "broker": broker}
                    click.echo(json.dumps(entry, default=str))
                else:
                    click.echo(
                        f"{letter.task_id or letter.tag}  {letter.at:%Y-%m-%d %H:%M:%S}  "
                        f"{letter.task or '?'} in {letter.queue}{_on(broker)}: {letter.reason}"
                    )


@dead.command("show")
@click.argument("name", metavar="ID")
def dead_show(name: str) -> None:
    """Show one by its task's id or its own tag, with its arguments and its history."""
    with _dead_letters() as lists:
        broker, letter = _find(lists, name)
    own = {"broker": broker, "queue": letter.queue, "arguments": letter.arguments()}
    click.echo(json.dumps({**asdict(letter), **own}, indent=2, default=str))


@dead.command("replay")
@_NAMES
@_ALL
def dead_replay(names: tuple[str, ...], everything: bool) -> None:  # noqa: FBT001 - a click option
    """Put them back into their queues, to be tried anew."""
    with _dead_letters() as lists:
        for broker, letter in _chosen(lists, names, everything=everything):
            if lists[broker].replay(letter):
                click.echo(f"{letter.task_id or letter.tag} is back in {letter.queue}{_on(broker)}")


@dead.command("drop")
@_NAMES
@_ALL
def dead_drop(names: tuple[str, ...], everything: bool) -> None:  # noqa: FBT001 - a click option
    """Delete them for good."""
    with _dead_letters() as lists:
        for broker, letter in _chosen(lists, names, everything=everything):
            if lists[broker].drop(letter):
                click.echo(f"{letter.task_id or letter.tag} is deleted")


def _on(broker: BrokerName) -> str:
    return "" if broker == "primary" else f" on the {broker}"


def _chosen(
    lists: Mapping[BrokerName, DeadLetters], names: Sequence[str], *, everything: bool
) -> list[tuple[BrokerName, DeadLetter]]:
    """All are found before any is touched."""
    if everything == bool(names):
        expected = "the ids of dead letters, or --all"
        raise ConfigError([Problem("ID", "both" if names else "nothing", expected)])
    if everything:
        return [(broker, letter) for broker, letters in lists.items() for letter in letters.all()]
    return [_find(lists, name) for name in names]


def _find(lists: Mapping[BrokerName, DeadLetters], name: str) -> tuple[BrokerName, DeadLetter]:
    """A letter, and whose it is.

    Raises:
        NoSuchLetterError: no broker has it.
    """
    from swarm.delivery.dead import NoSuchLetterError

    missing: NoSuchLetterError | None = None
    for broker, letters in lists.items():
        try:
            return broker, letters.find(name)
        except NoSuchLetterError as exc:
            missing = exc
    assert missing is not None  # noqa: S101 - there is a broker
    raise missing


@contextmanager
def _dead_letters() -> Iterator[Mapping[BrokerName, DeadLetters]]:
    """The lists of all brokers that answer, the primary's first.

    Raises:
        BrokerAwayError, ConfigError: none answers, or lets us in. One that does not while another
            does is a warning.
    """
    import redis

    from swarm.brokers import connect, failure
    from swarm.delivery import keys
    from swarm.delivery.dead import DeadLetters

    lists: dict[BrokerName, DeadLetters] = {}
    silent: list[SwarmError] = []
    # A producer, as whom people submit tasks, has no right to them.
    brokers = list(read_brokers(credential="redis-url-scaler"))
    with ExitStack() as stack:
        for broker in brokers:
            try:
                client = stack.enter_context(connect(broker))
                client.hlen(keys.DEAD)
            except redis.RedisError as exc:
                silent.append(failure(broker, exc))
            else:
                lists[broker.name] = DeadLetters(client)
        if not lists:
            raise silent[0]
        for each in silent:
            click.echo(f"swarm: not seen: {each}", err=True)
        try:
            yield lists
        except redis.RedisError as exc:
            raise failure(brokers[0], exc) from exc

"""What the scaler needs of the world, in its own words. Adapters give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from swarm.delivery.survey import Attention
from swarm.errors import TransientError
from swarm.scaler.model import BrokerCondition, DrainReading, HostReport, Unknown, one_line


class CommandError(TransientError):
    """A command on a host did not succeed: refused, failed, no connection, no answer in time."""

    def __init__(self, reason: str) -> None:
        """Of the reason, one line is kept: it may be a host's own words."""
        super().__init__(one_line(reason))


class CommandRefusedError(CommandError):
    """`swarm-unitctl` there has no such command: the host's release may be an earlier one."""


class QueueSource(Protocol):
    """Knows how many tasks wait."""

    async def waiting(self, queues: Sequence[str]) -> Mapping[str, int | Unknown]:
        """Tasks in each of the queues. Never raises: what it cannot tell is Unknown."""
        ...


class BrokerView(Protocol):
    """Knows what the broker itself shows, at far less than Flower's price; keeps a look at it."""

    def condition(self) -> BrokerCondition:
        """How the broker is, by the last look and those before it.

        While it is down it is looked at often enough to notice its return.
        """
        ...

    @property
    def stretch(self) -> float:
        """By how much longer than usual its budget has it asked, at least 1."""
        ...

    def attend(self, attention: Attention) -> None:
        """Told in every turn what the hosts' answers call for."""
        ...

    def quiet(self) -> frozenset[str]:
        """Deserted queues of which it would be known by now if anything waited in them."""
        ...

    def piled(self) -> Mapping[str, float]:
        """Queues in which the last survey saw tasks waiting, and when that was."""
        ...

    async def waiting(
        self, queues: Sequence[str], *, max_age_s: float
    ) -> Mapping[str, int | Unknown]:
        """Tasks in each of the queues, as of not longer ago than that. Never raises."""
        ...


@dataclass(frozen=True, slots=True)
class BrokerSide:
    """Who tells what waits on one broker."""

    queues: QueueSource
    view: BrokerView
    metered: bool = False
    """Each request to it counts towards a limit."""


class UnitManager(Protocol):
    """Knows and changes the instances of one host."""

    async def report(self) -> HostReport | Unknown:
        """The instances of every pool, with no command before it left out.

        Never raises: a host that is away is Unknown. It answers at once from what it has.
        """
        ...

    async def start(self, pool: str, number: int) -> None:
        """Ask systemd to start an instance; returns when systemd has accepted.

        Raises:
            CommandError: it has not.
        """
        ...

    async def drain(self, pool: str, number: int) -> DrainReading:
        """Have an instance take no more tasks, or go on taking none, and tell how far it is.

        The drain ends by itself a minute after the last time it was asked for. What `report` tells
        next has it, unless the instance takes long to say so itself.

        Raises:
            CommandError: it does not answer, or its host does not.
        """
        ...

    async def undrain(self, pool: str, number: int) -> None:
        """Have an instance consume again; one that does goes on.

        Raises:
            CommandError: as for `drain`, or it is being stopped.
        """
        ...

    async def stop(self, pool: str, number: int, proved: DrainReading) -> None:
        """Ask systemd to stop an instance that drains; returns when systemd has accepted.

        Its host first asks it once more, so that a stop which comes late meets no task.

        Raises:
            CommandError: systemd has not, or the instance is no longer the idle one of `proved`.
        """
        ...


class CommandRunner(Protocol):
    """Runs `swarm-unitctl` where the units are."""

    async def run(self, *words: str) -> str:
        """Standard output of `swarm-unitctl WORDS`.

        Raises:
            CommandError: any other end than exit status 0, with the reason.
        """
        ...

    async def watch(self, listener: Listener) -> Watch:
        """Start `swarm-unitctl watch`, heard by `listener`.

        Raises:
            CommandError: it could not be started. What goes wrong later the listener is told.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Listener(Protocol):
    """Hears a `swarm-unitctl watch`."""

    def heard(self, output: bytes) -> None:
        """Some of its standard output, as it came."""
        ...

    def ended(self, error: CommandError) -> None:
        """It has ended, or cannot be heard any more; told once, and not after `Watch.close`."""
        ...


class Watch(Protocol):
    """A `swarm-unitctl watch` that runs."""

    def ask(self, request: str) -> None:
        """Write a line to its standard input."""
        ...

    def close(self) -> None:
        """End it; if it has not ended, with its connection: that may be what is broken."""
        ...

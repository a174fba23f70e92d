"""The product: the real `Reconciler`, whose ports lead into the simulated world.

Policy, placement, proofs, the choice of whom to ask, all of it is what `swarm scaler run` runs.
What stands here in place of Flower, the broker and `swarm-unitctl` tells what they would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from random import Random

from bench.simulation.model import Beat
from bench.simulation.traces import Loss
from bench.simulation.unit import TICK_S, Unit, Word
from bench.simulation.world import COMMAND_S, UnreachableError, World
from swarm.delivery.survey import Attention, Rhythm
from swarm.scaler.daemon import SHORTEST_INTERVAL_S, SHORTEST_WAIT_S
from swarm.scaler.model import (
    BrokerCondition,
    Draining,
    DrainReading,
    HostReport,
    Instance,
    InstanceState,
    Unknown,
)
from swarm.scaler.ports import BrokerSide, CommandError
from swarm.scaler.reconcile import Reconciler
from swarm.settings import ScalerSettings, Settings
from swarm.witness import Witness

POOL = "browser"
#: No schedule asks what time it is.
_AT = datetime(2026, 1, 1, tzinfo=UTC)
#: Seconds that systemd waits for an instance to end beyond its tasks' time limit; see
#: systemd/celery-worker@.service.j2.
_STOP_MARGIN_S = 60.0


class Ours:
    """`swarm scaler run`, from turn to turn."""

    def __init__(self, world: World, _rng: Random, scaler: ScalerSettings | None = None) -> None:
        settings = settings_for(world, scaler or ScalerSettings())
        self._world = world
        self._interval_s = settings.scaler.interval_s
        self._turn_at = float("-inf")
        self._due_at: float | None = None
        side = BrokerSide(
            SimulatedFlower(world),
            SimulatedBroker(world, Rhythm(idle_s=settings.scaler.survey_interval_s)),
        )
        self._reconciler = Reconciler(
            settings,
            {"primary": side},
            {host: SimulatedUnits(world, host) for host in world.fleet.names},
        )

    def beats(self) -> Sequence[Beat]:
        return (Beat(TICK_S, self._turn_in_time),)

    async def _turn_in_time(self) -> float | None:
        """As the daemon does: at its interval, and sooner for news or what is due by then."""
        now, since_s = self._world.now, self._world.now - self._turn_at
        changed_at = self._world.changed_at
        has_news = changed_at is not None and now - changed_at >= TICK_S
        is_due = self._due_at is not None and now >= self._due_at
        if (
            since_s < self._interval_s
            and not (has_news and since_s >= SHORTEST_INTERVAL_S)
            and not is_due
        ):
            return self._due_at
        if has_news:
            self._world.changed_at = None
        self._turn_at = now
        outcome = await self._reconciler.turn(now, at=_AT)
        self._due_at = outcome.due_at and max(outcome.due_at, now + SHORTEST_WAIT_S)
        return self._due_at


def settings_for(world: World, scaler: ScalerSettings) -> Settings:
    """One pool that may fill the fleet; all else as the defaults are."""
    fleet = world.fleet
    return Settings.model_validate(
        {
            "pools": {
                POOL: {
                    "task_type": "browser",
                    "queues": [POOL],
                    "max_instances": fleet.hosts * fleet.places,
                    "metrics_port_base": 9100,
                    "task_time_limit_s": world.trace.task_time_limit_s,
                }
            },
            "hosts": {
                host: {"address": host, "max_instances": fleet.places} for host in fleet.names
            },
            "scaler": scaler,
        }
    )


class SimulatedFlower:
    """A `QueueSource`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def waiting(self, queues: Sequence[str]) -> Mapping[str, int | Unknown]:
        if self._world.is_lost(Loss.QUEUE):
            return dict.fromkeys(queues, Unknown("flower does not answer"))
        return dict.fromkeys(queues, self._world.waiting)


class SimulatedBroker:
    """A `BrokerView`: surveys in the product's rhythm, and a bell that rings while tasks wait."""

    def __init__(self, world: World, rhythm: Rhythm) -> None:
        self._world = world
        self._rhythm = rhythm
        self._attention = Attention()
        self._surveyed_at = float("-inf")
        self._length = 0
        self.stretch = 1.0

    def condition(self) -> BrokerCondition:
        return BrokerCondition(reached=True)

    def attend(self, attention: Attention) -> None:
        self._attention = attention

    def quiet(self) -> frozenset[str]:
        return frozenset() if self._world.waiting else self._attention.deserted

    def piled(self) -> Mapping[str, float]:
        self._survey(max_age_s=self._pause_s())
        return {POOL: self._surveyed_at} if self._length else {}

    async def waiting(
        self, queues: Sequence[str], *, max_age_s: float
    ) -> Mapping[str, int | Unknown]:
        # A bell that rings makes the last survey out of date.
        is_rung = self._length == 0 and self._world.waiting > 0
        self._survey(max_age_s=0.0 if is_rung else max_age_s)
        return dict.fromkeys(queues, self._length)

    def _survey(self, *, max_age_s: float) -> None:
        if self._world.now - self._surveyed_at >= max_age_s:
            self._surveyed_at, self._length = self._world.now, self._world.waiting

    def _pause_s(self) -> float:
        if self._attention.close:
            return self._rhythm.close_s
        return self._rhythm.busy_s if self._attention.busy else self._rhythm.idle_s


class SimulatedUnits:
    """A `UnitManager` for one host.

    What is said of a drain is true when the command takes effect: until then a task may slip in.
    """

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = host
        self._turn_at = 0.0

    async def report(self) -> HostReport | Unknown:
        self._turn_at = self._world.now
        if self._world.is_lost(Loss.HOST, self._host):
            return Unknown(f"{self._host} does not answer")
        is_mute = self._world.is_lost(Loss.REPORTS, self._host)
        return HostReport(
            tuple(
                _unreported(unit)
                if is_mute and unit.ready_at is not None and unit.stopping_at is None
                else _reported(unit, self._world.now)
                for unit in self._world.units.values()
                if unit.host == self._host
            )
        )

    async def start(self, pool: str, number: int) -> None:
        self._check(pool)
        try:
            self._world.start(self._host, number)
        except UnreachableError as exc:
            raise CommandError(str(exc)) from exc

    async def drain(self, pool: str, number: int) -> DrainReading:
        unit = self._answering(pool, number)
        try:
            drain = self._world.drain(unit)
        except UnreachableError as exc:
            raise CommandError(str(exc)) from exc
        renderers = int(unit.task is not None)
        return DrainReading(
            self._world.now, unit.pid, drain.is_idle, drain.sequence, Witness(4, renderers, 0.0)
        )

    async def undrain(self, pool: str, number: int) -> None:
        unit = self._answering(pool, number)
        try:
            self._world.undrain(unit)
        except UnreachableError as exc:
            raise CommandError(str(exc)) from exc

    def _answering(self, pool: str, number: int) -> Unit:
        """The instance, when the command has come there; all of a turn come at once."""
        self._check(pool)
        self._world.clock.advance(self._turn_at + COMMAND_S)
        unit = self._world.units.get((self._host, number))
        if unit is None or unit.ready_at is None or unit.stopping_at is not None:
            raise CommandError(f"{pool}-{number} does not answer")
        return unit

    async def stop(self, pool: str, number: int, proved: DrainReading) -> None:  # noqa: ARG002
        """Do it without looking: that a host would refuse is no excuse for a stop too many."""
        self._check(pool)
        unit = self._world.units.get((self._host, number))
        if unit is None:
            return
        patience_s = self._world.trace.task_time_limit_s + _STOP_MARGIN_S
        try:
            self._world.stop(unit, patience_s=patience_s)
        except UnreachableError as exc:
            raise CommandError(str(exc)) from exc

    def _check(self, pool: str) -> None:
        if pool != POOL:
            raise CommandError(f"no pool {pool} here")


def _reported(unit: Unit, now: float) -> Instance:
    """As `swarm.scaler.adapters.systemd` reads it."""
    word = unit.word(now)
    state = _state(unit, word)
    is_idle = state is InstanceState.IDLE
    return Instance(
        POOL,
        unit.number,
        unit.host,
        state,
        state_since=unit.state_since,
        idle_since=word.idle_since if is_idle else None,
        draining=_draining(word) if state is InstanceState.DRAINING else None,
        active=int(word.busy),
        tasks_ended=word.tasks_ended,
        pid=unit.pid,
        service_time_s=word.service_time_s,
        boot_time_s=None if unit.ready_at is None else unit.boot_s,
        waits=is_idle,
        connected=None if unit.ready_at is None else True,
    )


def _draining(word: Word) -> Draining | None:
    drain = word.drain
    return None if drain is None else Draining(drain.is_idle, drain.sequence, drain.since)


def _unreported(unit: Unit) -> Instance:
    return Instance(
        POOL,
        unit.number,
        unit.host,
        InstanceState.UNREPORTED,
        state_since=unit.state_since,
        pid=unit.pid,
        trouble="its status file is out of date",
    )


def _state(unit: Unit, word: Word) -> InstanceState:
    if unit.stopping_at is not None:
        return InstanceState.STOPPING
    if unit.ready_at is None:
        return InstanceState.STARTING
    if word.drain is not None:
        return InstanceState.DRAINING
    return InstanceState.BUSY if word.busy else InstanceState.IDLE

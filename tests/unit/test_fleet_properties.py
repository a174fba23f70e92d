"""What must hold over any history: a fleet is simulated for many turns of chance.

The simulated hosts behave as systemd does: starts take time and may fail, instances take tasks
from a queue between two looks and while they are told to drain, drains end that nobody renews,
reports grow stale, hosts and Flower go and come back, and the scaler is killed and started anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.scaler.daemon import SHORTEST_INTERVAL_S, SHORTEST_WAIT_S
from swarm.scaler.model import (
    Drain,
    Draining,
    DrainReading,
    HostReport,
    Instance,
    InstanceState,
    Outcome,
    Start,
    Stop,
    Undrain,
    Unknown,
)
from swarm.scaler.ports import BrokerSide, CommandError
from swarm.scaler.reconcile import Reconciler
from swarm.settings import Settings
from swarm.witness import Witness
from swarm.worker.drain import LEASE_S
from tests.builders import AT, make_settings
from tests.fakes import FakeQueues, FakeView

POOL = "browser"
#: The shortest windows that still mean something, so that a history has many steps down.
QUICK = {
    "stabilisation_s": 10,
    "unseen_counts_s": 60,
}


@dataclass
class Worker:
    """One process behind a unit."""

    pid: int
    started_at: float
    ready_at: float
    idle_since: float
    fails: bool = False
    silent_until: float = 0.0
    busy_until: float | None = None
    stopping: bool = False
    ended: int = 0
    draining: Draining | None = None
    drain_ends_at: float = 0.0
    sequence: int = 1

    def settle(self) -> None:
        """As `swarm.worker.drain` counts: a drain is idle when the last task has ended."""
        if self.draining is not None and not self.draining.is_idle and self.busy_until is None:
            self.sequence += 1
            self.draining = Draining(
                is_idle=True, sequence=self.sequence, since=self.draining.since
            )

    def consume(self) -> None:
        self.sequence += 1
        self.draining = None


@dataclass
class Host:
    """A `UnitManager` over simulated workers."""

    name: str
    fleet: Fleet
    workers: dict[int, Worker] = field(default_factory=dict)
    failed: dict[int, float] = field(default_factory=dict)
    away_until: float = 0.0
    is_broken: bool = False
    """Every start fails."""
    told: dict[int, Worker] = field(default_factory=dict)
    """Workers as their status files have them, where turns are so quick that it matters."""

    @property
    def away(self) -> bool:
        return self.fleet.now < self.away_until

    async def report(self) -> HostReport | Unknown:
        if self.away:
            return Unknown("no answer")
        shown = [self._show(number, worker) for number, worker in self.workers.items()]
        shown += [
            Instance(POOL, number, self.name, InstanceState.FAILED, at)
            for number, at in self.failed.items()
        ]
        return HostReport(tuple(shown))

    def _show(self, number: int, worker: Worker) -> Instance:
        now = self.fleet.now
        word = self.told.get(number, worker)
        if word.pid != worker.pid:
            word = worker
        idle_since = None
        if worker.stopping:
            state = InstanceState.STOPPING
        elif now < worker.ready_at:
            state = InstanceState.STARTING
        elif now < worker.silent_until:
            state = InstanceState.UNREPORTED
        elif word.draining is not None:
            state = InstanceState.DRAINING
        elif word.busy_until is not None:
            state = InstanceState.BUSY
        else:
            state, idle_since = InstanceState.IDLE, word.idle_since
        return Instance(
            POOL,
            number,
            self.name,
            state,
            state_since=worker.started_at,
            idle_since=idle_since,
            draining=word.draining if state is InstanceState.DRAINING else None,
            active=int(word.busy_until is not None),
            waits=state is InstanceState.IDLE,
            tasks_ended=word.ended,
            pid=worker.pid,
        )

    async def start(self, pool: str, number: int) -> None:
        fleet = self.fleet
        if self.away:
            raise CommandError("no answer")
        assert pool == POOL
        assert number not in self.workers, "started what runs already"
        self.failed.pop(number, None)
        fleet.pids += 1
        ready_at = fleet.now + fleet.chance.uniform(0.5, 6)
        fails = self.is_broken or fleet.chance.random() < fleet.failure_rate
        self.workers[number] = Worker(fleet.pids, fleet.now, ready_at, ready_at, fails)
        if fleet.chance.random() < fleet.failure_rate:
            raise CommandError("the answer was lost")

    async def drain(self, pool: str, number: int) -> DrainReading:
        worker = self._answering(pool, number)
        if worker.draining is None:
            if worker.busy_until is None and self.fleet.chance.random() < 0.2:
                self.fleet.queues.lengths[POOL] += 1
                self.fleet.take_task(worker)
            worker.sequence += 1
            worker.draining = Draining(
                is_idle=False, sequence=worker.sequence, since=self.fleet.now
            )
        worker.settle()
        worker.drain_ends_at = self.fleet.now + LEASE_S
        if self.fleet.chance.random() < self.fleet.failure_rate:
            raise CommandError("the answer was lost")
        assert worker.draining is not None
        renderers = int(worker.busy_until is not None or self.fleet.chance.random() < 0.1)
        return DrainReading(
            self.fleet.now,
            worker.pid,
            worker.draining.is_idle,
            worker.draining.sequence,
            None if self.fleet.chance.random() < 0.1 else Witness(4, renderers, 1.0),
        )

    async def undrain(self, pool: str, number: int) -> None:
        worker = self._answering(pool, number)
        if worker.draining is not None:
            worker.consume()

    def _answering(self, pool: str, number: int) -> Worker:
        assert pool == POOL
        if self.away:
            raise CommandError("no answer")
        worker = self.workers[number]
        if worker.stopping or self.fleet.now < worker.ready_at:
            raise CommandError("it does not answer")
        return worker

    async def stop(self, pool: str, number: int, proved: DrainReading) -> None:
        if self.away:
            raise CommandError("no answer")
        assert pool == POOL
        worker = self.workers[number]
        if worker.busy_until is not None:
            self.fleet.met_a_task += 1
        worker.stopping = True
        self.fleet.stopped.append(Stop(self.name, pool, number))


class Fleet:
    """Hosts, a queue and a clock, driven by one seed."""

    def __init__(
        self, seed: int, *, configured: Settings, failure_rate: float = 0.0, quick: bool = False
    ) -> None:
        """With `quick` turns may follow each other as fast as the daemon lets them."""
        self.chance = Random(seed)
        self.quick = quick
        self.failure_rate = failure_rate
        self.settings = configured
        self.now = 0.0
        self.pids = 0
        self.queues = FakeQueues({POOL: 0})
        self.view = FakeView(self.queues)
        self.hosts = {name: Host(name, self) for name in configured.hosts}
        self.stopped: list[Stop] = []
        self.met_a_task = 0
        """Stops that found a task."""
        self.restart_scaler()

    def restart_scaler(self) -> None:
        self.reconciler = Reconciler(
            self.settings, {"primary": BrokerSide(self.queues, self.view)}, self.hosts
        )

    @property
    def workers(self) -> list[Worker]:
        return [worker for host in self.hosts.values() for worker in host.workers.values()]

    def advance(self, seconds: float) -> None:
        """Let the world go on: tasks end and are taken, processes come and go."""
        end = self.now + seconds
        while self.now < end:
            self.now += SHORTEST_WAIT_S if self.quick else 0.5
            for host in self.hosts.values():
                if self.quick:
                    # Their reporters look four times a second.
                    host.told = {number: replace(each) for number, each in host.workers.items()}
                self._advance_host(host)

    def _advance_host(self, host: Host) -> None:
        for number, worker in list(host.workers.items()):
            if worker.fails and self.now >= worker.ready_at:
                del host.workers[number]
                host.failed[number] = self.now
                continue
            if worker.busy_until is not None and self.now >= worker.busy_until:
                worker.busy_until, worker.idle_since = None, self.now
                worker.ended += 1
            worker.settle()
            if worker.draining is not None and self.now >= worker.drain_ends_at:
                worker.consume()
            if worker.stopping:
                if worker.busy_until is None:
                    del host.workers[number]
            elif (
                self.now >= worker.ready_at
                and worker.busy_until is None
                and worker.draining is None
            ):
                self.take_task(worker)

    def take_task(self, worker: Worker) -> None:
        if self.queues.lengths[POOL] > 0:
            self.queues.lengths[POOL] -= 1
            worker.busy_until = self.now + self.chance.uniform(0.5, 8)

    def disturb(self, *, restarts: bool = True) -> None:
        """Something happens, now and then."""
        chance = self.chance
        if chance.random() < 0.1:
            self.queues.lengths[POOL] += chance.randint(1, 40)
        if chance.random() < 0.05:
            self.queues.away = None if self.queues.away else "Flower is away"
        if chance.random() < 0.03:
            host = chance.choice(list(self.hosts.values()))
            host.away_until = self.now + chance.uniform(1, 50)
        if chance.random() < 0.05 and self.workers:
            chance.choice(self.workers).silent_until = self.now + chance.uniform(1, 30)
        if restarts and chance.random() < 0.02:
            self.restart_scaler()

    def break_host(self, name: str) -> None:
        self.hosts[name].is_broken = True

    def calm(self) -> None:
        self.queues.away = None
        for host in self.hosts.values():
            host.away_until = 0.0
        for worker in self.workers:
            worker.silent_until = 0.0

    async def turn(self) -> Outcome:
        return await self.reconciler.turn(self.now, at=AT)


def configured(*, blind: int = 0, **scaler: object) -> Settings:
    everything = make_settings(scaler={**QUICK, **scaler})
    pool = everything.pools[POOL].model_copy(
        update={"min_instances": 1, "max_instances": 5, "blind_instances": blind}
    )
    return everything.model_copy(update={"pools": {POOL: pool}})


seeds = st.integers(0, 2**32)
#: 50 times as many histories with `--hypothesis-profile=thorough`.
THOROUGH = settings().max_examples // 100


class Readings:
    """Every answer to a drain, as hosts gave them: what the scaler may go by."""

    def __init__(self) -> None:
        self._since: dict[object, list[tuple[float, DrainReading]]] = {}

    def note(self, now: float, outcome: Outcome) -> None:
        for result in outcome.results:
            if result.reading is not None:
                self._since.setdefault(result.action.key, []).append((now, result.reading))

    def prove(self, victim: Instance, now: float) -> bool:
        """Whether the last two that were given are of one idleness, and 2 s apart."""
        assert victim.draining is not None
        alike = []
        for at, reading in reversed(self._since.get(victim.key, [])):
            holds = reading.is_idle and reading.witness is not None
            same = (reading.pid, reading.sequence) == (victim.pid, victim.draining.sequence)
            if not holds or not same or reading.witness.renderers:  # type: ignore[union-attr]
                break
            alike.append(at)
        return len(alike) >= 2 and alike[0] - alike[-1] >= 2 and now - alike[0] <= 20


@settings(max_examples=60 * THOROUGH)
@given(seed=seeds, failure_rate=st.sampled_from([0.0, 0.1]))
async def test_no_stop_without_a_proven_drain_nor_on_what_is_unknown(
    seed: int, failure_rate: float
) -> None:
    fleet = Fleet(seed, configured=configured(), failure_rate=failure_rate, quick=True)
    readings = Readings()
    for _ in range(200):
        fleet.disturb()
        outcome = await fleet.turn()
        seen = {instance.key: instance for instance in outcome.observation.instances(POOL)}
        for result in outcome.results:
            if not isinstance(result.action, Stop):
                continue
            victim = seen[result.action.key]
            assert victim.state is InstanceState.DRAINING
            assert victim.active == victim.reserved == 0
            assert readings.prove(victim, fleet.now)
            assert isinstance(outcome.observation.waiting[POOL], int)
            assert not any(isinstance(r, Unknown) for r in outcome.observation.hosts.values())
            assert all(i.state is not InstanceState.UNREPORTED for i in seen.values())
        readings.note(fleet.now, outcome)
        fleet.advance(fleet.chance.choice((SHORTEST_WAIT_S, SHORTEST_INTERVAL_S, 2.0)))
    assert fleet.met_a_task == 0


@settings(max_examples=60)
@given(seed=seeds, failure_rate=st.sampled_from([0.0, 0.1]))
async def test_a_need_takes_back_what_drains_before_it_starts_anything(
    seed: int, failure_rate: float
) -> None:
    fleet = Fleet(seed, configured=configured(), failure_rate=failure_rate)
    for _ in range(120):
        fleet.disturb()
        outcome = await fleet.turn()
        decision = outcome.decisions[POOL]
        actions = [result.action for result in outcome.results]
        draining = {
            each.key
            for each in outcome.observation.instances(POOL)
            if each.state is InstanceState.DRAINING
        }
        back = {each.key for each in actions if isinstance(each, Undrain)}
        missing = max(0, decision.desired - decision.running)
        assert len(back) == min(missing, len(draining))
        if any(isinstance(each, Start) for each in actions):
            assert back == draining
        if missing:
            assert not any(isinstance(each, Drain | Stop) for each in actions)
        for result in outcome.results:
            if isinstance(result.action, Undrain) and result.error is None:
                worker = fleet.hosts[result.action.host].workers[result.action.number]
                assert worker.draining is None, "it does not consume"
        fleet.advance(2)


@settings(max_examples=40)
@given(seed=seeds)
async def test_no_more_are_drained_than_two_turns_can_spare_and_only_work_takes_them_back(
    seed: int,
) -> None:
    fleet = Fleet(seed, configured=configured())
    kept = 5
    for _ in range(60):
        fleet.disturb(restarts=False)
        outcome = await fleet.turn()
        decision = outcome.decisions[POOL]
        begun = sum(isinstance(result.action, Drain) for result in outcome.results)
        keep = kept
        if decision.basis is not None and decision.basis.reckoning is not None:
            keep = decision.basis.reckoning.keep
        if begun:
            assert decision.running - begun >= max(keep, kept)
        kept = keep
        fleet.advance(2)
    fleet.calm()
    while fleet.queues.lengths[POOL]:
        await fleet.turn()
        fleet.advance(2)
    for _ in range(100):
        outcome = await fleet.turn()
        assert not any(isinstance(result.action, Undrain) for result in outcome.results)
        fleet.advance(2)


@settings(max_examples=60 * THOROUGH)
@given(seed=seeds, failure_rate=st.sampled_from([0.0, 0.1]))
async def test_the_total_never_exceeds_the_maximum(seed: int, failure_rate: float) -> None:
    """Counting what nobody can see, for as long as it counts; a new scaler cannot know it."""
    fleet = Fleet(seed, configured=configured(unseen_counts_s=1e6), failure_rate=failure_rate)
    for _ in range(120):
        fleet.disturb(restarts=False)
        outcome = await fleet.turn()
        maximum = fleet.settings.pools[POOL].max_instances
        assert len(fleet.workers) <= maximum
        assert outcome.decisions[POOL].desired <= maximum
        for name, host in fleet.hosts.items():
            assert len(host.workers) <= fleet.settings.hosts[name].max_instances
            starting = sum(fleet.now < each.ready_at for each in host.workers.values())
            assert starting <= fleet.settings.scaler.host_starts_at_once
        fleet.advance(2)


@settings(max_examples=60 * THOROUGH)
@given(seed=seeds, failure_rate=st.sampled_from([0.0, 0.1]))
async def test_blindness_lowers_nothing_and_raises_to_no_more_than_is_allowed(
    seed: int, failure_rate: float
) -> None:
    fleet = Fleet(seed, configured=configured(blind=3), failure_rate=failure_rate)
    for _ in range(120):
        fleet.disturb()
        outcome = await fleet.turn()
        decision = outcome.decisions[POOL]
        if isinstance(outcome.observation.waiting[POOL], Unknown):
            assert not any(isinstance(each.action, Stop) for each in outcome.results)
            assert decision.running <= decision.desired <= max(decision.running, 3)
        fleet.advance(2)


@settings(max_examples=10 * THOROUGH)
@given(seed=seeds)
async def test_a_host_on_which_every_start_fails_is_tried_ever_more_rarely(seed: int) -> None:
    fleet = Fleet(seed, configured=configured(), failure_rate=0.0)
    fleet.queues.lengths[POOL] = 500
    fleet.break_host("h1")
    tried = []
    for _ in range(600):
        outcome = await fleet.turn()
        tried += [fleet.now for each in outcome.results if each.action.host == "h1"]
        fleet.advance(6)
    # Several at first; then one after 1, 2, 4, 8, 16 and 30 minutes at the soonest.
    assert len(tried) <= fleet.settings.hosts["h1"].max_instances + 6
    assert len(fleet.hosts["h2"].workers) > 0


@settings(max_examples=30 * THOROUGH)
@given(seed=seeds)
async def test_an_idle_pool_ends_at_its_minimum(seed: int) -> None:
    fleet = Fleet(seed, configured=configured())
    for _ in range(40):
        fleet.disturb()
        await fleet.turn()
        fleet.advance(2)
    fleet.calm()
    for _ in range(250):
        await fleet.turn()
        fleet.advance(2)
    assert fleet.queues.lengths[POOL] == 0
    assert len(fleet.workers) == 1
    asked = len(fleet.stopped)
    for _ in range(30):
        assert (await fleet.turn()).results == ()
        fleet.advance(2)
    assert len(fleet.stopped) == asked


@settings(max_examples=30 * THOROUGH)
@given(seed=seeds)
async def test_a_lasting_backlog_reaches_the_maximum(seed: int) -> None:
    fleet = Fleet(seed, configured=configured(unseen_counts_s=1e6))
    for _ in range(20):
        fleet.disturb(restarts=False)
        await fleet.turn()
        fleet.advance(2)
    fleet.calm()
    for _ in range(60):
        fleet.queues.lengths[POOL] = 500
        await fleet.turn()
        fleet.advance(2)
    assert len(fleet.workers) == 5
    assert not any(worker.stopping for worker in fleet.workers)


@pytest.mark.parametrize("seed", range(5))
async def test_the_same_history_gives_the_same_decisions(seed: int) -> None:
    async def decisions() -> list[object]:
        fleet = Fleet(seed, configured=configured(), failure_rate=0.1)
        told: list[object] = []
        for _ in range(60):
            fleet.disturb()
            outcome = await fleet.turn()
            told.append((outcome.decisions, outcome.results, outcome.notes))
            fleet.advance(2)
        return told

    assert await decisions() == await decisions()


@settings(max_examples=30 * THOROUGH)
@given(seed=seeds)
async def test_every_task_is_taken_in_the_end(seed: int) -> None:
    """No state of the scaler keeps work from being done once the world is well again."""
    fleet = Fleet(seed, configured=configured(), failure_rate=0.2)
    for _ in range(60):
        fleet.disturb()
        await fleet.turn()
        fleet.advance(2)
    fleet.calm()
    fleet.failure_rate = 0.0
    fleet.queues.lengths[POOL] += 30
    for _ in range(200):
        await fleet.turn()
        fleet.advance(2)
    assert fleet.queues.lengths[POOL] == 0

"""What must hold over any history: a fleet is simulated for many turns of chance.

The simulated hosts behave as systemd does: starts take time and may fail, instances take tasks
from a queue between two looks, reports grow stale, hosts and Flower go and come back, and the
scaler is killed and started anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swarm.scaler.model import (
    HostReport,
    Instance,
    InstanceState,
    Outcome,
    Stop,
    Unknown,
)
from swarm.scaler.placement import IDLE_PROOF_GAP_S
from swarm.scaler.ports import BrokerSide, CommandError
from swarm.scaler.reconcile import Reconciler
from swarm.settings import Settings
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
        idle_since = None
        if worker.stopping:
            state = InstanceState.STOPPING
        elif now < worker.ready_at:
            state = InstanceState.STARTING
        elif now < worker.silent_until:
            state = InstanceState.UNREPORTED
        elif worker.busy_until is not None:
            state = InstanceState.BUSY
        else:
            state, idle_since = InstanceState.IDLE, worker.idle_since
        return Instance(
            POOL,
            number,
            self.name,
            state,
            state_since=worker.started_at,
            idle_since=idle_since,
            active=int(worker.busy_until is not None),
            waits=state is InstanceState.IDLE,
            tasks_ended=worker.ended,
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

    async def stop(self, pool: str, number: int) -> None:
        if self.away:
            raise CommandError("no answer")
        assert pool == POOL
        self.workers[number].stopping = True
        self.fleet.stopped.append(Stop(self.name, pool, number))


class Fleet:
    """Hosts, a queue and a clock, driven by one seed."""

    def __init__(self, seed: int, *, configured: Settings, failure_rate: float = 0.0) -> None:
        self.chance = Random(seed)
        self.failure_rate = failure_rate
        self.settings = configured
        self.now = 0.0
        self.pids = 0
        self.queues = FakeQueues({POOL: 0})
        self.view = FakeView(self.queues)
        self.hosts = {name: Host(name, self) for name in configured.hosts}
        self.stopped: list[Stop] = []
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
            self.now += 0.5
            for host in self.hosts.values():
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
            if worker.stopping:
                if worker.busy_until is None:
                    del host.workers[number]
            elif self.now >= worker.ready_at and worker.busy_until is None:
                self._take_task(worker)

    def _take_task(self, worker: Worker) -> None:
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


@settings(max_examples=60 * THOROUGH)
@given(seed=seeds, failure_rate=st.sampled_from([0.0, 0.1]))
async def test_no_stop_hits_work_or_acts_on_what_is_unknown(seed: int, failure_rate: float) -> None:
    fleet = Fleet(seed, configured=configured(), failure_rate=failure_rate)
    idle_sights: dict[tuple[str, int, int], list[float]] = {}
    for _ in range(120):
        fleet.disturb()
        outcome = await fleet.turn()
        seen = {instance.key: instance for instance in outcome.observation.instances(POOL)}
        for instance in seen.values():
            sights = idle_sights.setdefault((instance.host, instance.number, instance.pid), [])
            if instance.state is InstanceState.IDLE and instance.tasks_ended == (
                fleet.hosts[instance.host].workers[instance.number].ended
            ):
                sights.append(fleet.now)
            else:
                sights.clear()
        for result in outcome.results:
            if not isinstance(result.action, Stop):
                continue
            stop = result.action
            victim = seen[stop.host, stop.pool, stop.number]
            assert victim.state is InstanceState.IDLE
            assert victim.active == victim.reserved == 0
            assert victim.idle_for_s(fleet.now) >= IDLE_PROOF_GAP_S
            first, *_, last = idle_sights[stop.host, stop.number, victim.pid]
            assert last - first >= 2, "fewer than two sights of it idle"
            assert isinstance(outcome.observation.waiting[POOL], int)
            assert not any(isinstance(r, Unknown) for r in outcome.observation.hosts.values())
            assert all(i.state is not InstanceState.UNREPORTED for i in seen.values())
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

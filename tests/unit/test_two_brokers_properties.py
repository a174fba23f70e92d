"""What must hold over any history of two brokers that go and come back.

The simulated workers notice both late, each by itself; tasks are taken between two looks, and now
and then a worker does not report.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

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
    Unknown,
)
from swarm.scaler.reconcile import Reconciler
from swarm.witness import Witness
from swarm.worker.drain import LEASE_S
from tests.builders import AT, make_two_brokers
from tests.fakes import FakeBroker


@dataclass
class Worker:
    """One process behind a unit."""

    pid: int
    ready_at: float
    idle_since: float
    busy_until: float | None = None
    notices_at: float = 0.0
    """When it will say of its broker what is true now."""
    connected: bool = True
    silent_until: float = 0.0
    stopping: bool = False
    ended: int = 0
    draining: Draining | None = None
    drain_ends_at: float = 0.0
    sequence: int = 1


@dataclass
class Host:
    """A `UnitManager` over simulated workers."""

    name: str
    fleet: Fleet
    workers: dict[tuple[str, int], Worker] = field(default_factory=dict)

    async def report(self) -> HostReport | Unknown:
        return HostReport(tuple(self._show(*key) for key in self.workers))

    def _show(self, pool: str, number: int) -> Instance:
        now, worker = self.fleet.now, self.workers[pool, number]
        state = InstanceState.IDLE if worker.busy_until is None else InstanceState.BUSY
        if worker.draining is not None:
            state = InstanceState.DRAINING
        if worker.stopping:
            state = InstanceState.STOPPING
        elif now < worker.ready_at:
            state = InstanceState.STARTING
        elif now < worker.silent_until:
            state = InstanceState.UNREPORTED
        is_idle = state is InstanceState.IDLE
        return Instance(
            pool,
            number,
            self.name,
            state,
            state_since=worker.ready_at,
            idle_since=worker.idle_since if is_idle else None,
            draining=worker.draining if state is InstanceState.DRAINING else None,
            active=int(worker.busy_until is not None),
            waits=is_idle and worker.connected,
            connected=None if state is InstanceState.UNREPORTED else worker.connected,
            tasks_ended=worker.ended,
            pid=worker.pid,
        )

    async def start(self, pool: str, number: int) -> None:
        assert (pool, number) not in self.workers, "started what runs already"
        self.fleet.pids += 1
        ready_at = self.fleet.now + self.fleet.chance.uniform(0.5, 6)
        self.workers[pool, number] = Worker(self.fleet.pids, ready_at, ready_at)
        self.fleet.started.append((self.fleet.now, pool))

    async def drain(self, pool: str, number: int) -> DrainReading:
        worker = self.workers[pool, number]
        is_idle = worker.busy_until is None
        if worker.draining is None or worker.draining.is_idle is not is_idle:
            since = self.fleet.now if worker.draining is None else worker.draining.since
            worker.sequence += 1
            worker.draining = Draining(is_idle, worker.sequence, since)
        worker.drain_ends_at = self.fleet.now + LEASE_S
        witness = Witness(4, int(not is_idle), 1.0)
        return DrainReading(self.fleet.now, worker.pid, is_idle, worker.sequence, witness)

    async def undrain(self, pool: str, number: int) -> None:
        worker = self.workers[pool, number]
        worker.draining = None
        worker.sequence += 1

    async def stop(self, pool: str, number: int, proved: DrainReading) -> None:
        assert self.workers[pool, number].busy_until is None, "a stop met a task"
        self.workers[pool, number].stopping = True


class Fleet:
    """Two hosts and two brokers, driven by one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.now = 0.0
        self.pids = 0
        self.started: list[tuple[float, str]] = []
        self.settings = make_two_brokers(
            hosts={name: {"address": name, "max_instances": 2} for name in ("h1", "h2")},
            scaler={
                "stabilisation_s": 10,
            },
            brokers={"confirm_down_s": 10},
        )
        self.brokers = {"primary": FakeBroker(), "fallback": FakeBroker()}
        self.hosts = {name: Host(name, self) for name in self.settings.hosts}
        self.reconciler = Reconciler(
            self.settings,
            {"primary": self.brokers["primary"].side, "fallback": self.brokers["fallback"].side},
            self.hosts,
        )

    def broker_of(self, pool: str) -> FakeBroker:
        return self.brokers[self.settings.pools[pool].broker]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += 0.5
            for broker in self.brokers.values():
                if broker.view.down_for_s is not None:
                    broker.view.down_for_s += 0.5
            for host in self.hosts.values():
                for (pool, number), worker in list(host.workers.items()):
                    self._advance(host, pool, number, worker)

    def _advance(self, host: Host, pool: str, number: int, worker: Worker) -> None:
        broker = self.broker_of(pool)
        there = broker.view.down_for_s is None
        if worker.connected != there and self.now >= worker.notices_at:
            worker.connected = there
            worker.notices_at = self.now + self.chance.uniform(0, 5)
        if worker.busy_until is not None and self.now >= worker.busy_until:
            worker.busy_until, worker.idle_since = None, self.now
            worker.ended += 1
        if worker.draining is not None and self.now >= worker.drain_ends_at:
            worker.draining = None
            worker.sequence += 1
        if worker.stopping:
            if worker.busy_until is None:
                del host.workers[pool, number]
        elif worker.draining is not None:
            if not worker.draining.is_idle and worker.busy_until is None:
                worker.sequence += 1
                since = worker.draining.since
                worker.draining = Draining(is_idle=True, sequence=worker.sequence, since=since)
        elif there and worker.connected and self.now >= worker.ready_at:
            lengths = broker.queues.lengths
            if worker.busy_until is None and lengths["browser"] > 0:
                lengths["browser"] -= 1
                worker.busy_until = self.now + self.chance.uniform(0.5, 20)

    def disturb(self) -> None:
        chance = self.chance
        for broker in self.brokers.values():
            if chance.random() < 0.04:
                if broker.view.down_for_s is None:
                    broker.lose()
                else:
                    broker.find()
            if broker.view.down_for_s is None and chance.random() < 0.1:
                broker.queues.lengths["browser"] += chance.randint(1, 20)
        workers = [each for host in self.hosts.values() for each in host.workers.values()]
        if workers and chance.random() < 0.05:
            chance.choice(workers).silent_until = self.now + chance.uniform(1, 20)

    async def turn(self) -> Outcome:
        return await self.reconciler.turn(self.now, at=AT)


seeds = st.integers(0, 2**32)


@settings(max_examples=60)
@given(seed=seeds)
async def test_whoever_is_stopped_was_idle_and_gave_way_or_was_not_needed(seed: int) -> None:
    fleet = Fleet(seed)
    for _ in range(120):
        fleet.disturb()
        outcome = await fleet.turn()
        observation = outcome.observation
        for result in outcome.results:
            action = result.action
            broker = fleet.settings.pools[action.pool].broker
            is_down = broker in observation.confirmed_down
            if isinstance(action, Start):
                assert not is_down, "started on a broker that is down"
                continue
            [victim] = [
                each for each in observation.instances(action.pool) if each.key == action.key
            ]
            if isinstance(action, Drain):
                assert victim.state is InstanceState.IDLE
            elif isinstance(action, Stop):
                assert victim.state is InstanceState.DRAINING
                assert victim.active == victim.reserved == 0
            else:
                assert victim.state is InstanceState.DRAINING
                continue
            if is_down:
                assert victim.connected is False
                [other] = fleet.settings.pools.keys() - {action.pool}
                decision = outcome.decisions[other]
                assert decision.desired > decision.running, "gave way to nobody"
            else:
                assert outcome.decisions[action.pool].direction != "up"
                assert isinstance(observation.waiting[action.pool], int)
        for name, host in fleet.hosts.items():
            assert len(host.workers) <= fleet.settings.hosts[name].max_instances
        fleet.advance(2)


@settings(max_examples=30)
@given(seed=seeds, lost=st.sampled_from(["primary", "fallback"]))
async def test_what_a_broker_holds_is_done_however_long_the_other_is_down(
    seed: int, lost: str
) -> None:
    fleet = Fleet(seed)
    for _ in range(40):
        fleet.disturb()
        await fleet.turn()
        fleet.advance(2)
    for name, broker in fleet.brokers.items():
        broker.find()
        if name == lost:
            broker.lose()
        else:
            # As many as four workers do in the time that follows, whatever waited before.
            broker.queues.lengths["browser"] = 40
    [held] = [broker for name, broker in fleet.brokers.items() if name != lost]
    for _ in range(200):
        await fleet.turn()
        fleet.advance(2)
    assert held.queues.lengths["browser"] == 0


@settings(max_examples=30)
@given(seed=seeds)
async def test_once_both_answer_all_is_done_and_the_pools_end_at_their_minima(seed: int) -> None:
    fleet = Fleet(seed)
    for _ in range(60):
        fleet.disturb()
        await fleet.turn()
        fleet.advance(2)
    for broker in fleet.brokers.values():
        broker.find()
    for host in fleet.hosts.values():
        for worker in host.workers.values():
            worker.silent_until = 0.0
    for _ in range(400):
        await fleet.turn()
        fleet.advance(2)
    assert [broker.queues.lengths["browser"] for broker in fleet.brokers.values()] == [0, 0]
    pools = [pool for host in fleet.hosts.values() for pool, _ in host.workers]
    assert pools == ["browser"]

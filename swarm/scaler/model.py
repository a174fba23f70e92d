"""The scaler's values: what was observed, what was decided and why, what came of it.

Times are seconds of the scaler's monotonic clock, those that hosts tell of too: adapters convert
them. Ages and durations are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from swarm.witness import Witness


@dataclass(frozen=True, slots=True)
class Unknown:
    """Not observed. It is never read as zero, empty or gone."""

    reason: str


#: Host, pool, number.
InstanceKey = tuple[str, str, int]


class InstanceState(StrEnum):
    """Where an instance stands, as systemd and its own report say together."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    PAUSED = "paused"
    """It runs and takes no tasks: its unit is near its limits, or its host does not reach the
    broker. What it has, it does."""
    DRAINING = "draining"
    """It was told to take no more tasks, does those that it has, and would consume again if told
    so. It is no capacity, and holds its place."""
    STOPPING = "stopping"
    FAILED = "failed"
    UNREPORTED = "unreported"
    """It runs, but its own word is missing or too old: it may hold tasks."""


@dataclass(frozen=True, slots=True)
class Draining:
    """How far a drain has come, by the instance's own word."""

    is_idle: bool
    """It holds no task, and gets none."""
    sequence: int
    """Idle twice under one number, in one process, is idle all the time in between."""
    since: float
    """When it stopped consuming."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One `celery-<pool>@<number>` unit on one host."""

    pool: str
    number: int
    host: str
    state: InstanceState
    state_since: float = 0.0
    """When the unit last changed its state."""
    idle_since: float | None = None
    """Since when it has had no task, by its own word; None unless idle."""
    active: int = 0
    reserved: int = 0
    capacity: int = 1
    tasks_ended: int = 0
    pid: int = 0
    service_time_s: float | None = None
    boot_time_s: float | None = None
    trouble: str | None = None
    """Why its own word cannot be believed, when it is unreported; why it takes no tasks."""
    draining: Draining | None = None
    waits: bool = False
    """By its own fresh word it is idle, connected and blocked on its queues: they are empty."""
    connected: bool | None = None
    """Whether it reaches its broker, by its own word; None without one."""
    cut_off: bool = False
    """It is paused because it does not reach its broker while the scaler does."""
    queues: tuple[str, ...] | None = None
    """Queues it consumes; None for its pool's own."""
    requests: int | None = None
    """What it has asked of a metered broker since it started; None where nobody counts."""
    misconfigured: bool = False
    """It failed with exit status 2: starting it again changes nothing until somebody mends it."""
    killed: bool = False
    """It failed by a signal, such as SIGKILL when its stop took longer than its unit allows."""

    @property
    def key(self) -> InstanceKey:
        return (self.host, self.pool, self.number)

    @property
    def name(self) -> str:
        return f"celery-{self.pool}@{self.number} on {self.host}"

    def state_for_s(self, now: float) -> float:
        return max(0.0, now - self.state_since)

    def idle_for_s(self, now: float) -> float:
        """Seconds without a task; 0 unless idle."""
        return 0.0 if self.idle_since is None else max(0.0, now - self.idle_since)


@dataclass(frozen=True, slots=True)
class HostReport:
    """How one host was at one moment."""

    instances: tuple[Instance, ...]
    memory_available_mb: int | None = None
    seen_at: float | None = None
    """That moment; None for that of the turn. What came after it is not known: nothing proves that
    who was idle then still is."""
    memory_pressure: float | None = None
    """Share of the last 10 s, in percent, in which some process waited for memory; None where the
    kernel does not tell."""
    cpu_pressure: float | None = None
    """The same for processors."""


@dataclass(frozen=True, slots=True)
class BrokerCondition:
    """How a broker is, by the surveys of it."""

    down_for_s: float | None = None
    """Seconds since which its surveys have failed without a break, in a way that keeps producers
    away from it as well; None when the last one succeeded, or none was made yet."""
    reason: str = ""
    """Why, while it is down."""
    reached: bool = False
    """The last survey was answered and understood."""

    def describe(self, broker: str) -> str:
        """`primary is down for 42 s: Connection refused`."""
        if self.down_for_s is None:
            return f"{broker} answers"
        return f"{broker} is down for {self.down_for_s:.0f} s: {self.reason}"


@dataclass(frozen=True, slots=True)
class Observation:
    """One turn's picture. Every pool and every host of the configuration has an entry."""

    now: float
    waiting: Mapping[str, int | Unknown]
    """Tasks in each pool's queues, taken by no worker."""
    hosts: Mapping[str, HostReport | Unknown]
    unseen: tuple[Instance, ...] = ()
    """Instances last seen, not long ago, on hosts that do not answer now."""
    brokers: Mapping[str, BrokerCondition] = field(default_factory=dict)
    """Each broker that has pools."""
    confirmed_down: frozenset[str] = frozenset()
    """Brokers that are down for long enough that their pools give way to another broker's."""
    pinned: frozenset[InstanceKey] = frozenset()
    """Instances that people want kept, whatever the policy says."""
    drained: frozenset[str] = frozenset()
    """Hosts that people want emptied: nothing is started there."""

    def seen_at(self, host: str) -> float:
        """The moment that a host's report is of."""
        report = self.hosts[host]
        if isinstance(report, HostReport) and report.seen_at is not None:
            return report.seen_at
        return self.now

    def instance(self, key: InstanceKey) -> Instance | None:
        """The one on a host that answered."""
        report = self.hosts[key[0]]
        if isinstance(report, Unknown):
            return None
        return next((each for each in report.instances if each.key == key), None)

    def instances(self, pool: str) -> tuple[Instance, ...]:
        """The pool's instances on hosts that answered."""
        return tuple(
            instance
            for report in self.hosts.values()
            if isinstance(report, HostReport)
            for instance in report.instances
            if instance.pool == pool
        )


class Direction(StrEnum):
    """What a decision asks for."""

    UP = "up"
    DOWN = "down"
    HOLD = "hold"


class Cause(StrEnum):
    """The kind of reason: a turn whose cause is new is worth a line in the journal."""

    BACKLOG = "backlog"
    MINIMUM = "minimum"
    AT_LIMIT = "at-limit"
    ENOUGH = "enough"
    STABILISING = "stabilising"
    NOT_IDLE = "not-idle"
    SURPLUS = "surplus"
    QUEUE_UNKNOWN = "queue-unknown"
    BROKER_DOWN = "broker-down"
    HOST_AWAY = "host-away"
    UNREPORTED = "unreported"
    WARMING_UP = "warming-up"
    BLIND = "blind"
    STARTS_PAUSED = "starts-paused"
    STOPS_PAUSED = "stops-paused"


@dataclass(frozen=True, slots=True)
class Limit:
    """A number and what set it: `min_instances`, a schedule, somebody's override."""

    count: int
    set_by: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for a pool in one turn, after schedules and overrides."""

    minimum: Limit
    maximum: Limit
    spare: Limit
    no_starts: str | None = None
    """Why nothing may be started; None when it may."""
    no_stops: str | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a pool's decision is made of: counts of one turn's observation.

    The policy reads nothing else, so a decision can be made anew from it.
    """

    now: float
    waiting: int | Unknown
    """Tasks taken by no worker."""
    down: str | None = None
    """How its broker is, when its pools give way."""
    away: tuple[str, ...] = ()
    """Hosts that do not answer."""
    starting: int = 0
    idle: int = 0
    busy: int = 0
    paused: int = 0
    draining: int = 0
    stopping: int = 0
    failed: int = 0
    unreported: int = 0
    """Instances, by state."""
    drained: int = 0
    """Starting, idle, busy and draining ones on hosts that are drained. They are no capacity, none
    is taken back, and none of the counts above has them: they are stopped once they are done."""
    overdue: int = 0
    """Instances that should have been ready for long: they are no more counted as starting."""
    unseen: int = 0
    """Instances last seen, not long ago, on hosts that do not answer."""
    fresh: int = 0
    """Those of the starting, idle and busy ones that have been so for `scale_up_period_s` at most:
    what was started lately."""
    suspects: tuple[str, ...] = ()
    """Hosts on which the pool's instances fail again and again."""
    breaker: bool = False
    """They do on half of the hosts at least: one is started at a time."""
    drainable: int = 0
    """Idle ones that may be drained: nobody has pinned them, they did not refuse lately, and their
    hosts are not drained."""
    active: int = 0
    """Tasks that busy instances run, at most as many as they have places."""
    open: int = 0
    """Places of busy instances that are free."""
    reserved: int = 0
    """Tasks that instances have taken and not begun."""
    capacity: int = 1
    """Places that one more instance has: the concurrency, or the most that it scales itself to."""
    ended: int = 0
    """Tasks that the instances have done since each of them started."""
    service_time_s: float | None = None
    """Mean over the instances that have measured one."""
    boot_time_s: float | None = None
    """Slowest start that an instance reports."""

    @property
    def running(self) -> int:
        """Instances that count as capacity."""
        return self.starting + self.idle + self.busy

    @property
    def present(self) -> int:
        """Instances that run, with those of which it is not known whether they work."""
        return self.running + self.unreported


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What the policy makes of the inputs, on the way to a decision."""

    service_time_s: float
    boot_time_s: float
    pace: float
    """Tasks that the instances end in a second."""
    tasks_each: int
    """What a new place takes from the queue within the target wait after its first task, `k` in the
    documentation."""
    need: int
    """Instances that the work needs."""
    worth: int
    """Instances that what was needed lately makes worth keeping."""
    keep: int
    """The most of these, and of minimum and spare, within the maximum: so many are kept."""


@dataclass(frozen=True, slots=True)
class Basis:
    """All that a decision was made of but settings and memory."""

    inputs: Inputs
    limits: Limits
    reckoning: Reckoning | None = None
    """None where the queue is unknown, or the broker down: then there is nothing to reckon."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many instances a pool should have, and why."""

    pool: str
    direction: Direction
    running: int
    """Instances that count as capacity now."""
    desired: int
    wanted: int
    """What the work asks for, before any limit."""
    cause: Cause
    reason: str
    limit: str | None = None
    """The limit that won, when one did."""
    basis: Basis | None = None
    """What it was made of; those of the policy have it."""


@dataclass(frozen=True, slots=True)
class PoolMemory:
    """What the policy remembers of a pool between turns."""

    needs: tuple[tuple[float, int], ...] = ()
    """(time, instances needed from then on), for the stabilisation window."""
    ends: tuple[tuple[float, float], ...] = ()
    """(time, tasks that the instances have done), of the last seconds."""
    keep: int | None = None
    """Instances that were kept in the turn before; None before the first."""
    blind_since: float | None = None
    """Since when neither the queue nor all instances are known; None when something is."""
    last_blind_start_at: float | None = None
    """When something was last started without knowing what waits."""
    fresh_turns: int = 0
    """Turns in a row in which everything was known."""


@dataclass(frozen=True, slots=True)
class _OnInstance:
    """An action; each is of a class of its own, which tells what is done."""

    host: str
    pool: str
    number: int

    verb: ClassVar[str]
    """What programs call it."""

    @property
    def key(self) -> InstanceKey:
        return (self.host, self.pool, self.number)


@dataclass(frozen=True, slots=True)
class Start(_OnInstance):
    """Start an instance that does not run."""

    verb: ClassVar = "start"


@dataclass(frozen=True, slots=True)
class Drain(_OnInstance):
    """Have an instance take no more tasks."""

    verb: ClassVar = "drain"


@dataclass(frozen=True, slots=True)
class Renew(_OnInstance):
    """Ask an instance that drains how far it is, which has it go on draining."""

    verb: ClassVar = "renew"


@dataclass(frozen=True, slots=True)
class Undrain(_OnInstance):
    """Have an instance that drains consume again."""

    verb: ClassVar = "undrain"


@dataclass(frozen=True, slots=True)
class Stop(_OnInstance):
    """Stop an instance that is drained, and has proved it."""

    verb: ClassVar = "stop"


Action = Start | Drain | Renew | Undrain | Stop


@dataclass(frozen=True, slots=True)
class DrainReading:
    """What an instance answered when it was told to drain, and what its unit ran just after that.

    It answers that question and no earlier one, so it is younger than the question.
    """

    at: float
    """Seconds of its host's monotonic clock, as readings are compared with each other only."""
    pid: int
    is_idle: bool
    sequence: int
    witness: Witness | None
    """None when not all of its processes could be seen."""


@dataclass(frozen=True, slots=True)
class ActionResult:
    """An action and why it failed; None when the host accepted it."""

    action: Action
    error: str | None = None
    reading: DrainReading | None = None
    """What came of a `Drain` or `Renew`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One turn, whole."""

    observation: Observation
    decisions: Mapping[str, Decision]
    results: tuple[ActionResult, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """What limited the plan: no room, hosts left out."""
    overdue: Mapping[InstanceKey, str] = field(default_factory=dict)
    """Instances that drain for longer than any task may take, and why they were not stopped."""
    due_at: float | None = None
    """When the next turn has something to do whatever the interval is: ask again what drains, stop
    what has proved itself, drain what is still too many. None when nothing waits for a moment."""

"""Room on the hosts, given away start by start. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from heapq import heapify, heappop, heapreplace

from swarm.scaler.failing import failed_lately, failures
from swarm.scaler.model import HostReport, InstanceState, Observation, Start
from swarm.settings import MAX_INSTANCE_NUMBER, Settings

#: Share of the last 10 s, in percent, in which something on the host waited for memory, beyond
#: which it gets no start: it is short of it, whatever it says is available.
MOST_MEMORY_PRESSURE = 10.0
#: The same for its processors: such a host is the last choice. A start there helps less, but hosts
#: at work wait for processors now and then.
HIGH_CPU_PRESSURE = 60.0

_HOLDS_A_PLACE = {
    InstanceState.STARTING,
    InstanceState.IDLE,
    InstanceState.BUSY,
    InstanceState.PAUSED,
    InstanceState.DRAINING,
    InstanceState.STOPPING,
    InstanceState.UNREPORTED,
}


class _Host:
    """What is left on one host that answered."""

    def __init__(self, name: str, report: HostReport, settings: Settings) -> None:
        self.size = settings.hosts[name].max_instances
        self.report = report
        states = Counter(instance.state for instance in report.instances)
        self.free = self.size - sum(states[state] for state in _HOLDS_A_PLACE)
        self.starts_left = settings.scaler.host_starts_at_once - states[InstanceState.STARTING]
        self.memory_mb = report.memory_available_mb
        if self.memory_mb is not None and states[InstanceState.STARTING]:
            # What they will take is still counted as available.
            self.memory_mb -= sum(
                settings.pools[instance.pool].memory_mb
                for instance in report.instances
                if instance.state is InstanceState.STARTING and instance.pool in settings.pools
            )

    @property
    def is_short_of_memory(self) -> bool:
        return (self.report.memory_pressure or 0.0) >= MOST_MEMORY_PRESSURE

    def order(self, memory_mb: int) -> tuple[bool, float]:
        """The best host for a start that takes so much memory comes first."""
        is_busy = (self.report.cpu_pressure or 0.0) >= HIGH_CPU_PRESSURE
        # One that does not tell has what its free places would take.
        left_mb = self.free * memory_mb if self.memory_mb is None else self.memory_mb
        return is_busy, -(left_mb if memory_mb else self.free) / self.size


class Places:
    """Room left on the hosts that answered, taken up start by start."""

    def __init__(
        self,
        settings: Settings,
        observation: Observation,
        refused: Collection[tuple[str, str]] = (),
    ) -> None:
        """`refused` are hosts and pools of which a start failed there lately: the last choice."""
        self._settings = settings
        self._refused = refused
        self._drained = observation.drained
        self._now = observation.now
        self._hosts = {
            name: _Host(name, report, settings)
            for name, report in observation.hosts.items()
            if isinstance(report, HostReport)
        }
        # What starts on a host that does not reach the pool's broker would do nothing.
        self._cut_off = {
            (name, settings.pools[instance.pool].broker)
            for name, host in self._hosts.items()
            for instance in host.report.instances
            if instance.cut_off
        }
        self._failures = failures(settings, observation)
        self._tried = {
            (instance.host, instance.pool)
            for host, pool in self._failures
            for instance in self._hosts[host].report.instances
            if instance.pool == pool and instance.state is InstanceState.STARTING
        }

    def starts(self, pool: str, count: int) -> list[Start]:
        starts: list[Start] = []
        memory_mb = self._settings.pools[pool].memory_mb
        best = [
            ((name, pool) in self._refused, host.order(memory_mb), name)
            for name, host in self._hosts.items()
            if self._takes(name, pool)
        ]
        heapify(best)
        numbers: dict[str, list[int]] = {}
        while len(starts) < count and best:
            is_last, _, name = best[0]
            host = self._hosts[name]
            if name not in numbers:
                numbers[name] = _numbers(host.report, pool)
            starts.append(Start(name, pool, numbers[name].pop()))
            self._tried.add((name, pool))
            host.free -= 1
            host.starts_left -= 1
            if host.memory_mb is not None:
                host.memory_mb -= memory_mb
            if self._takes(name, pool):
                heapreplace(best, (is_last, host.order(memory_mb), name))
            else:
                heappop(best)
        return starts

    def free(self) -> dict[str, int]:
        """What is left on each host."""
        return {name: host.free for name, host in self._hosts.items()}

    def may_take(self, host: str, pool: str) -> bool:
        """Whether the host takes starts of the pool once there is room."""
        return (
            self._settings.hosts[host].serves(pool)
            and host not in self._drained
            and not self._rests(host, pool)
            and (host, self._settings.pools[pool].broker) not in self._cut_off
        )

    def why_not(self, pool: str) -> str:
        """Why no host takes one more."""
        serving = [name for name in self._hosts if self._settings.hosts[name].serves(pool)]
        if not serving:
            return "no host that answers runs this pool"
        drained = [name for name in serving if name in self._drained]
        if len(drained) == len(serving):
            return f"drained: {', '.join(sorted(drained))}"
        serving = [name for name in serving if name not in self._drained]
        broker = self._settings.pools[pool].broker
        cut_off = [name for name in serving if (name, broker) in self._cut_off]
        if len(cut_off) == len(serving):
            return f"the {broker} broker is not reached from {', '.join(sorted(cut_off))}"
        resting = sorted(name for name in serving if self._rests(name, pool))
        if resting:
            return f"instances failed on {', '.join(resting)}"
        free = [name for name in serving if name not in cut_off and self._hosts[name].free > 0]
        short = sorted(name for name in free if self._lacks_memory(name, pool))
        if short and len(short) == len(free):
            memory_mb = self._settings.pools[pool].memory_mb
            return f"one more takes {memory_mb} MB, too much for {', '.join(short)}"
        return "each host starts a few at a time" if free else "every host is full"

    def _takes(self, name: str, pool: str) -> bool:
        host, failed = self._hosts[name], self._failures.get((name, pool))
        return (
            host.free > 0
            and host.starts_left > 0
            and not self._lacks_memory(name, pool)
            and self.may_take(name, pool)
            # A host that is suspect is tried with one.
            and (failed is None or not failed.is_suspect or (name, pool) not in self._tried)
        )

    def _lacks_memory(self, name: str, pool: str) -> bool:
        host, memory_mb = self._hosts[name], self._settings.pools[pool].memory_mb
        if memory_mb == 0:
            return False
        return host.is_short_of_memory or (
            host.memory_mb is not None and host.memory_mb < memory_mb
        )

    def _rests(self, host: str, pool: str) -> bool:
        failed = self._failures.get((host, pool))
        return failed is not None and failed.pause_until > self._now


def _numbers(report: HostReport, pool: str) -> list[int]:
    """Numbers for new instances, the one to take first last: the lowest that is not in use.

    One that has failed shows so until it is started anew, and comes last, the earliest first.
    """
    own = [instance for instance in report.instances if instance.pool == pool]
    held = {instance.number for instance in own if instance.state in _HOLDS_A_PLACE}
    failed = {instance.number: instance.state_since for instance in failed_lately(own)}
    candidates = set(range(1, MAX_INSTANCE_NUMBER + 1)) - held
    return sorted(candidates, key=lambda n: (n in failed, failed.get(n, 0.0), n), reverse=True)

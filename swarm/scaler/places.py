"""Room on the hosts, given away start by start. Pure."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

from swarm.scaler.model import HostReport, InstanceState, Observation, Start
from swarm.settings import MAX_INSTANCE_NUMBER, Settings

#: Seconds a host gets no start of a pool of which an instance failed there; systemd has tried it
#: several times by then. An instance that failed on its configuration waits longer: nothing
#: changes until somebody mends it.
FAILED_PAUSE_S = 60.0
MISCONFIGURED_PAUSE_S = 600.0
_HOLDS_A_PLACE = {
    InstanceState.STARTING,
    InstanceState.IDLE,
    InstanceState.BUSY,
    InstanceState.PAUSED,
    InstanceState.STOPPING,
    InstanceState.UNREPORTED,
}


class Places:
    """Room left on the hosts that answered, taken up start by start."""

    def __init__(self, settings: Settings, observation: Observation) -> None:
        self._hosts, self._pools = settings.hosts, settings.pools
        self._drained = observation.drained
        self._reports = {
            name: report
            for name, report in observation.hosts.items()
            if isinstance(report, HostReport)
        }
        self._free = {}
        for name, report in self._reports.items():
            held = sum(instance.state in _HOLDS_A_PLACE for instance in report.instances)
            self._free[name] = self._hosts[name].max_instances - held
        self._starts_left = {
            name: settings.scaler.host_starts_at_once
            - sum(instance.state is InstanceState.STARTING for instance in report.instances)
            for name, report in self._reports.items()
        }
        self._paused = {
            (host, instance.pool)
            for host, report in self._reports.items()
            for instance in report.instances
            if instance.state is InstanceState.FAILED
            and instance.state_for_s(observation.now)
            < (MISCONFIGURED_PAUSE_S if instance.misconfigured else FAILED_PAUSE_S)
        }
        self._taken = {
            instance.key
            for report in self._reports.values()
            for instance in report.instances
            if instance.state in _HOLDS_A_PLACE
        }

    def starts(self, pool: str, count: int) -> list[Start]:
        starts: list[Start] = []
        emptiest = [(-self._free[name], name) for name in self._reports if self._takes(name, pool)]
        heapify(emptiest)
        while len(starts) < count and emptiest:
            _, host = emptiest[0]
            number = next(
                n for n in range(1, MAX_INSTANCE_NUMBER + 1) if (host, pool, n) not in self._taken
            )
            self._taken.add((host, pool, number))
            self._free[host] -= 1
            self._starts_left[host] -= 1
            starts.append(Start(host, pool, number))
            if self._takes(host, pool):
                heapreplace(emptiest, (-self._free[host], host))
            else:
                heappop(emptiest)
        return starts

    def free(self) -> dict[str, int]:
        """What is left on each host."""
        return dict(self._free)

    def may_take(self, host: str, pool: str) -> bool:
        """Whether the host takes starts of the pool once there is room."""
        return (
            self._hosts[host].serves(pool)
            and host not in self._drained
            and (host, pool) not in self._paused
            and not self._cut_off(host, pool)
        )

    def why_not(self, pool: str) -> str:
        """Why no host takes one more."""
        serving = [name for name in self._reports if self._hosts[name].serves(pool)]
        if not serving:
            return "no host that answers runs this pool"
        drained = [name for name in serving if name in self._drained]
        if len(drained) == len(serving):
            return f"drained: {', '.join(sorted(drained))}"
        serving = [name for name in serving if name not in self._drained]
        cut_off = [name for name in serving if self._cut_off(name, pool)]
        if len(cut_off) == len(serving):
            broker = self._pools[pool].broker
            return f"the {broker} broker is not reached from {', '.join(sorted(cut_off))}"
        paused = [name for name in serving if (name, pool) in self._paused]
        if paused:
            return f"instances failed on {', '.join(sorted(paused))}"
        if any(self._free[name] > 0 for name in serving if name not in cut_off):
            return "each host starts a few at a time"
        return "every host is full"

    def _takes(self, host: str, pool: str) -> bool:
        return self.may_take(host, pool) and self._free[host] > 0 and self._starts_left[host] > 0

    def _cut_off(self, host: str, pool: str) -> bool:
        """Whether the host does not reach the pool's broker: what starts there would do nothing."""
        broker = self._pools[pool].broker
        return any(
            instance.cut_off and self._pools[instance.pool].broker == broker
            for instance in self._reports[host].instances
        )

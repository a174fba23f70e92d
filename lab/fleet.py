"""Bring the hosts to life and keep them so: start, probe, replace what does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from lab.commands import LabError, run
from lab.machine import Machine
from lab.podman import Container, Podman
from lab.state import State
from lab.topology import HOSTS, LABEL, NETWORK, Host

T = TypeVar("T")

BOOT_TIMEOUT_S = 90.0
POLL_S = 0.3
PROBE_TIMEOUT_S = 8.0
PATIENCE_S = 15.0
UP = ("running", "degraded")
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key.pub"
CA_IN_HOST = "/usr/local/share/swarm-lab/ca-certificates.crt"
# systemd's sandboxing silently does nothing without SYS_ADMIN and a shared root; redis-server's
# unit fails to start without SYS_PTRACE; a packet filter of its own needs NET_ADMIN.
CAPABILITIES = ("SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "NET_RAW")
# The old date makes a play's first `apt update` real, however fresh the image is.
ENTRYPOINT = f"""\
install -d -m 0700 /root/.ssh
echo "$0" > /root/.ssh/authorized_keys
touch -d @0 /var/lib/apt/lists
if [ -e {CA_IN_HOST} ]; then cat {CA_IN_HOST} > /etc/ssl/certs/ca-certificates.crt; fi
mount --make-rshared / && exec /sbin/init
"""


class Fate(Enum):
    """What `up` did with a host."""

    KEPT = "already running"
    STARTED = "started"
    REPLACED = "replaced: it did not answer"
    RENEWED = "replaced: the image has changed"


@dataclass(frozen=True, slots=True)
class Fleet:
    """The lab's hosts on this machine."""

    machine: Machine
    podman: Podman
    state: State

    def ensure(self, image: str, public_key: str) -> dict[str, Fate]:
        """Make every host answer over SSH with systemd up; keep those that already do."""
        containers = {container.name: container for container in self.podman.containers()}
        self._remove_strangers(containers.values())
        fates = in_parallel(HOSTS, lambda h: self._triage(h, containers, image))
        fresh = [host for host in HOSTS if fates[host.name] is not Fate.KEPT]
        # One at a time: podman's network set-up races with itself.
        for host in fresh:
            if host.container in containers:
                self._discard(containers[host.container])
            self._start(host, image, public_key)
        if fresh:
            self.state.write_known_hosts(in_parallel(HOSTS, self._read_host_key))
            in_parallel(fresh, self._await_systemd)
        return fates

    def probe(self, host: Host) -> str:
        """systemd's own word on a host, over SSH: running, degraded, starting, ...; or "away"."""
        # is-system-running exits 1 unless "running".
        remote = "systemctl is-system-running; true"
        argv = ["ssh", "-F", str(self.state.ssh_config), "-o", "BatchMode=yes"]
        try:
            said = run([*argv, host.name, remote], timeout_s=PROBE_TIMEOUT_S)
        except LabError:
            return "away"
        return said.strip() or "away"

    def probe_all(self) -> dict[str, str]:
        """Every host's state."""
        return in_parallel(HOSTS, self.probe)

    def destroy(self) -> int:
        """Remove the hosts; return how many there were."""
        containers = self.podman.containers()
        for container in containers:
            self._discard(container)
        return len(containers)

    def _triage(self, host: Host, containers: dict[str, Container], image: str) -> Fate:
        container = containers.get(host.container)
        if container is None:
            return Fate.STARTED
        if container.image != image:
            return Fate.RENEWED
        if not container.alive:
            return Fate.REPLACED
        # Replacing a host loses what was deployed on it: a busy machine gets some patience.
        deadline = time.monotonic() + PATIENCE_S
        while (said := self.probe(host)) not in UP and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return Fate.KEPT if said in UP else Fate.REPLACED

    def _remove_strangers(self, containers: Iterable[Container]) -> None:
        """Containers of the lab that are none of today's hosts may hold their addresses."""
        names = {host.container for host in HOSTS}
        for container in containers:
            if container.name not in names:
                self._discard(container)

    def _discard(self, container: Container) -> None:
        try:
            self.podman.remove(container.name)
        except LabError:
            # After a crash the first attempt may fail on leftovers that it has cleared by then.
            self.podman.remove(container.name)
        self.podman.remove_namespace(container.namespace)

    def _start(self, host: Host, image: str, public_key: str) -> None:
        cache = self.state.package_cache(host.name)
        argv = ["--detach", "--name", host.container, "--hostname", host.name, "--label", LABEL]
        argv += ["--network", NETWORK, "--ip", str(host.address), "--no-hosts"]
        argv += ["--systemd", "always", "--stop-signal", "SIGRTMIN+3", "--pids-limit", "-1"]
        argv += [f"--cap-add={capability}" for capability in CAPABILITIES]
        argv += self.machine.run_options()
        if self.machine.ca_bundle is not None:
            argv += ["--volume", f"{self.machine.ca_bundle.resolve()}:{CA_IN_HOST}:ro"]
        argv += ["--volume", f"{cache}:/var/cache/apt/archives"]
        self.podman.call("run", *argv, image, "/bin/sh", "-c", ENTRYPOINT, public_key)

    def _read_host_key(self, host: Host) -> str:
        """Ask the host itself, through podman: nothing on the network can answer instead."""
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while True:
            try:
                kind, key = self.podman.call("exec", host.container, "cat", HOST_KEY).split()[:2]
            except (LabError, ValueError) as exc:
                if time.monotonic() > deadline:
                    raise LabError(f"{host.name} made no SSH host key: {exc}") from exc
                time.sleep(POLL_S)
            else:
                return f"{kind} {key}"

    def _await_systemd(self, host: Host) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT_S
        while (said := self.probe(host)) not in UP:
            if time.monotonic() > deadline:
                raise LabError(
                    f"{host.name} ({host.address}) is {said!r} after {BOOT_TIMEOUT_S:.0f} s; "
                    f"see: podman logs {host.container}"
                )
            time.sleep(POLL_S)


def in_parallel(hosts: Iterable[Host], action: Callable[[Host], T]) -> dict[str, T]:
    """Do the same with several hosts at once; the first failure is raised when all have ended."""
    with ThreadPoolExecutor(max_workers=len(HOSTS)) as pool:
        futures = {host.name: pool.submit(action, host) for host in hosts}
    return {name: future.result() for name, future in futures.items()}

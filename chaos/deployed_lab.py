"""The lab as chaos uses it: hosts, their units and processes, Redis as its admin, the network."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import redis

from chaos.processes import Unit, find_units
from chaos.recovery import HeldMessage, held_by, look
from lab.commands import LabError, run
from lab.hosts import on_host
from lab.state import State
from lab.topology import HOSTS, SUBNET

CONTROL = next(host for host in HOSTS if host.name == "control")
WORKERS = tuple(host.name for host in HOSTS if host.name != "control")
REDIS_PORT = 6379
#: Where the role's Redis keeps its append-only file, on the control host.
APPEND_ONLY = "/var/lib/redis/appendonlydir"
#: This machine's own address in the lab's network.
HERE = str(next(SUBNET.hosts()))
#: Of the start limit's five, which systemd counts over ten minutes.
_STARTS = 4
#: Times to look for a task that lasts until it is looked at again.
_ATTEMPTS = 20


class MissedError(Exception):
    """There was nothing that the fault could strike."""


@dataclass(slots=True)
class DeployedLab:
    """The lab's hosts."""

    state: State
    connect: Callable[[], redis.Redis] | None = None
    """To another Redis than the role's, whose holders are looked at."""
    append_only: str = APPEND_ONLY
    password: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)
    """`<unit> on <host>` of what nothing else may touch: a stop would wake it, as systemd does."""
    away: set[str] = field(default_factory=set)
    """Hosts that are down or cut off."""
    _deaths_by_unit: dict[str, int] = field(default_factory=dict)
    """By `<unit> on <host>`: each uses up a start."""

    def __post_init__(self) -> None:
        self.facts = json.loads(self.state.facts.read_text(encoding="utf-8"))
        path = self.state.directory / "passwords" / "redis-admin"
        self.password = path.read_text(encoding="utf-8").strip()
        for host in HOSTS:
            self._ids[host.name] = self.inspect(host.name, "{{.Id}}")

    # -- hosts

    def on(self, host: str, command: str) -> str:
        return on_host(self.state, host, command)

    def podman(self, *words: str) -> str:
        return run([*self.facts["podman"], *words])

    def container(self, host: str) -> str:
        return str(self.facts["containers"][host])

    def inspect(self, host: str, what: str) -> str:
        return self.podman("inspect", "--format", what, self.container(host)).strip()

    def in_network_of(self, host: str, *words: str) -> str:
        """Run one of this machine's programs in a host's network."""
        pid = self.inspect(host, "{{.State.Pid}}")
        return run(["nsenter", "--net", "--target", pid, *words], timeout_s=10)

    def until_reachable(self, host: str, *, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self.on(host, "systemctl is-system-running --wait; true")
            except LabError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return

    # -- units

    def units(self, host: str) -> dict[str, Unit]:
        return find_units(host, self._ids[host])

    def workers(self, host: str) -> dict[str, Unit]:
        """Running instances, but for those that are frozen."""
        return {
            name: unit
            for name, unit in self.units(host).items()
            if name.startswith("celery-") and str(unit) not in self.frozen
        }

    def suspend_busy_worker(
        self,
        host: str,
        chance: float,
        *,
        fits: Callable[[Unit], object] = lambda _: True,
    ) -> tuple[Unit, list[HeldMessage]]:
        """A busy instance, suspended by SIGSTOP: what it holds now, it cannot commit any more.

        Of this host; if there is none for a while, of another that is there.

        Raises:
            MissedError: there was none.
        """
        for _ in range(_ATTEMPTS):
            try:
                unit, messages = self.busy_worker(host, chance, fits=fits, timeout_s=8)
            except MissedError:
                others = [other for other in WORKERS if other not in {host, *self.away}]
                if not others:
                    raise
                unit, messages = self.busy_worker(others[0], chance, fits=fits)
            unit.send_signal(signal.SIGSTOP)
            try:
                with contextlib.closing(self.redis()) as client:
                    held = [each for each in look(client) if each in messages]
            except (redis.RedisError, OSError):
                held = []
            if held:
                return unit, held
            unit.send_signal(signal.SIGCONT)
        raise MissedError(f"every task on {host} ended too soon")

    def busy_worker(
        self,
        host: str,
        chance: float,
        *,
        fits: Callable[[Unit], object] = lambda _: True,
        timeout_s: float = 15.0,
    ) -> tuple[Unit, list[HeldMessage]]:
        """An instance that holds something this moment, and what.

        Raises:
            MissedError: there was none for so long.
        """
        deadline = time.monotonic() + timeout_s
        with contextlib.closing(self.redis()) as client:
            while time.monotonic() < deadline:
                with contextlib.suppress(redis.RedisError, OSError):
                    workers = self.workers(host)
                    messages = look(client)
                    busy = [
                        (unit, mine)
                        for name, unit in sorted(workers.items())
                        if self._deaths_by_unit.get(str(unit), 0) < _STARTS
                        and (mine := held_by(messages, holder_prefix(host, name)))
                        and unit.main is not None
                        and fits(unit)
                    ]
                    if busy:
                        return busy[int(chance * len(busy))]
                time.sleep(0.02)
        raise MissedError(f"no instance on {host} held anything within {timeout_s:g} s")

    def note_death(self, unit: Unit) -> None:
        """One of the starts that systemd allows it is used up."""
        self._deaths_by_unit[str(unit)] = self._deaths_by_unit.get(str(unit), 0) + 1

    # -- Redis

    def redis(self) -> redis.Redis:
        """As its admin, and without patience."""
        if self.connect is not None:
            return self.connect()
        return redis.Redis(
            host=str(CONTROL.address),
            port=REDIS_PORT,
            username="admin",
            password=self.password,
            socket_timeout=3,
            socket_connect_timeout=2,
        )

    def redis_answers(self) -> bool:
        try:
            with contextlib.closing(self.redis()) as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def until_redis_answers(self, *, timeout_s: float = 30) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.redis_answers():
            if time.monotonic() > deadline:
                raise LabError(f"Redis does not answer after {timeout_s:g} s")
            time.sleep(0.05)
        self.keep_append_only_file()

    def keep_append_only_file(self) -> None:
        """No rewrite: it would replace by its outcome what the witness wants to read."""
        with contextlib.closing(self.redis()) as client:
            client.config_set("auto-aof-rewrite-percentage", 0)

    # -- the network

    def lead_through(self, host: str, port: int) -> None:
        """A host's new connections to Redis go to a port of this machine."""
        # Which the egress control of its workers sees, and forgets by itself.
        place = f"{{ {HERE} . {port} timeout 1h }}"
        self.in_network_of(
            host, "nft", "add", "element", "inet", "swarm_egress", "destinations4", place
        )
        self.in_network_of(host, *_nat("-A", port))

    def lead_straight(self, host: str, port: int) -> None:
        with contextlib.suppress(LabError):
            self.in_network_of(host, *_nat("-D", port))

    def cut(self, host: str, port: int) -> None:
        """Nothing passes between a host and Redis, in silence. Undone by `mend`."""
        self.drop(host, *_ends(port))

    def mend(self, host: str, port: int) -> None:
        self.pass_again(host, *_ends(port))

    def drop(self, host: str, *ends: tuple[str, int]) -> None:
        """Nothing passes between a host and these. Undone by `pass_again`."""
        for rule in _drops(ends):
            self.in_network_of(host, "iptables", "-w", "-I", *rule)

    def pass_again(self, host: str, *ends: tuple[str, int]) -> None:
        for rule in _drops(ends):
            with contextlib.suppress(LabError):
                self.in_network_of(host, "iptables", "-w", "-D", *rule)

    def write(self, host: str, path: str, text: str) -> None:
        """A file that everyone may read."""
        directory = path.rpartition("/")[0]
        command = f"mkdir -p {directory} && printf %s {shlex.quote(text)} > {path} && "
        self.on(host, f"{command} chmod 0755 {directory} && chmod 0644 {path}")


def holder_prefix(host: str, unit: str) -> str:
    """`worker1:browser:3:` of `celery-browser@3.service` on worker1."""
    pool, _, number = unit.removeprefix("celery-").removesuffix(".service").partition("@")
    return f"{host}:{pool}:{number}:"


def _nat(verb: str, port: int) -> list[str]:
    return [
        *("iptables", "-w", "-t", "nat", verb, "OUTPUT", "-p", "tcp"),
        *("-d", str(CONTROL.address), "--dport", str(REDIS_PORT)),
        *("-j", "DNAT", "--to-destination", f"{HERE}:{port}"),
    ]


def _ends(port: int) -> tuple[tuple[str, int], ...]:
    return (str(CONTROL.address), REDIS_PORT), (HERE, port)


def _drops(ends: Iterable[tuple[str, int]]) -> list[list[str]]:
    return [
        rule
        for address, number in ends
        for rule in (
            ["OUTPUT", "-p", "tcp", "-d", address, "--dport", str(number), "-j", "DROP"],
            ["INPUT", "-p", "tcp", "-s", address, "--sport", str(number), "-j", "DROP"],
        )
    ]

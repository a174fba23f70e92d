"""The lab with two brokers: each one's Redis, the switches of the primary, programs on its hosts.

The primary is the stand-in of lab/hosted on the control host. The Redis behind it, which no fault
reaches, and its switches listen on loopback there, and are reached through one tunnel.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import redis

from chaos.deployed_lab import CONTROL, WORKERS, DeployedLab
from chaos.preparation import keep_rewriting, require_pages, until_at_rest
from lab.commands import LabError
from lab.hosted.control import ask
from lab.hosts import on_host, use_lab_settings
from lab.state import State
from lab.topology import hosts_file
from swarm.brokers import BrokerName

#: Of the stand-in, its switches, and the Redis behind it (lab/hosted.yml).
HOSTED_PORT, _SWITCHES_PORT, _BEHIND_PORT = 6380, 6390, 6391
_APPEND_ONLY = "/var/lib/swarm-lab-hosted-redis/appendonlydir"
_CREDENTIAL = "/etc/swarm/credentials/redis-fallback-url"
#: Binds a file over /etc/hosts for the command behind it.
_NAMED = ("unshare", "--mount", "--", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"')


@dataclass(slots=True)
class Stand:
    """Both brokers of the lab, and how programs of this machine get to them."""

    labs: dict[BrokerName, DeployedLab]
    """The lab as seen in each broker's Redis."""
    switches: str
    environ: Mapping[str, str]
    """Of a producer."""
    hosts_file: Path

    @property
    def lab(self) -> DeployedLab:
        """For what has nothing to do with a broker."""
        return self.labs["fallback"]

    def prefix(self, host: str = "") -> list[str]:
        """Before a command: the lab's names, and a host's network or this machine's own."""
        words = [*_NAMED, str(self.hosts_file)]
        if host:
            pid = self.lab.inspect(host, "{{.State.Pid}}")
            words += ["nsenter", "--net", "--target", pid, "--"]
        return words

    def switch(self, change: Mapping[str, object]) -> dict[str, object]:
        """Turn switches of the primary; its state."""
        return ask(self.switches, "/", change)

    def heal(self) -> None:
        """Nothing is wrong with the primary any more."""
        ask(self.switches, "/heal", {})

    def restart(self) -> None:
        """The primary cuts all connections and forgets all scripts."""
        ask(self.switches, "/restart", {})

    def state(self) -> dict[str, object]:
        """The primary's."""
        return ask(self.switches)


def has_two_brokers(state: State) -> bool:
    """Whether the lab is deployed so."""
    try:
        return on_host(state, CONTROL.name, f"test -e {_CREDENTIAL} && echo yes || true") == "yes"
    except LabError:
        return False


@contextlib.contextmanager
def stand(state: State, directory: Path) -> Iterator[Stand]:
    """At rest before; nothing is wrong with the primary afterwards.

    Raises:
        LabError: the lab is not deployed so, or not at rest.
    """
    if not has_two_brokers(state):
        raise LabError("the lab has one broker: run `make deploy INVENTORY=inventories/lab-hosted`")
    environ = _settings(state)
    (directory / "hosts").write_text(hosts_file(), encoding="utf-8")
    password = (state.directory / "passwords" / "redis-hosted").read_text(encoding="utf-8").strip()
    with _tunnel(state, (_SWITCHES_PORT, _BEHIND_PORT)) as (switches, behind):

        def connect() -> redis.Redis:
            return redis.Redis(port=behind, password=password, socket_timeout=5)

        labs: dict[BrokerName, DeployedLab] = {
            "primary": DeployedLab(state, connect=connect, append_only=_APPEND_ONLY),
            "fallback": DeployedLab(state),
        }
        made = Stand(labs, f"http://127.0.0.1:{switches}", environ, directory / "hosts")
        made.heal()
        require_pages()
        for lab in labs.values():
            lab.until_redis_answers()
            until_at_rest(lab)
        try:
            yield made
        finally:
            made.heal()
            for host in WORKERS:
                made.lab.on(host, "systemctl reset-failed 'celery-*' || true")
            for lab in labs.values():
                keep_rewriting(lab)


def _settings(state: State) -> dict[str, str]:
    """A producer's, with both brokers."""
    use_lab_settings(state)
    authority = str(state.directory / "hosted-authority.pem")
    return {
        **os.environ,
        "REDIS_URL": trusting(os.environ["REDIS_URL"], authority),
        "REDIS_FALLBACK_URL": on_host(state, CONTROL.name, f"cat {_CREDENTIAL}"),
        "REDIS_FALLBACK_ENABLED": "true",
    }


def trusting(url: str, authority: str) -> str:
    """The URL with the authority's certificate where this machine has it."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), "ssl_ca_certs": authority}
    return urlunsplit(parts._replace(query=urlencode(query)))


@contextlib.contextmanager
def _tunnel(state: State, ports: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """This machine's ports that lead to these of the control host's loopback."""
    here = _free_port(), _free_port()
    ways = ["-oExitOnForwardFailure=yes"]
    ways += [f"-L127.0.0.1:{mine}:127.0.0.1:{port}" for mine, port in zip(here, ports, strict=True)]
    process = subprocess.Popen(
        ["ssh", "-F", str(state.ssh_config), "-N", *ways, CONTROL.name],
        stdin=subprocess.DEVNULL,
    )
    try:
        _until_open(here[0])
        yield here
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _until_open(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=2).close()
        except OSError as exc:
            if time.monotonic() > deadline:
                raise LabError("no tunnel to the control host") from exc
            time.sleep(0.1)
        else:
            return

"""What the lab keeps between runs: its SSH key and configuration, its caches.

It lives outside the clone, so every clone on a machine reaches the same lab.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.commands import run
from lab.topology import HOSTS, SUBNET


def default_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """$SWARM_LAB_HOME, or ~/.cache/swarm-lab."""
    named = environ.get("SWARM_LAB_HOME")
    return Path(named).absolute() if named else Path.home() / ".cache" / "swarm-lab"


@dataclass(frozen=True, slots=True)
class State:
    """Paths below the state directory."""

    directory: Path

    @property
    def key(self) -> Path:
        """Private SSH key of root on every host."""
        return self.directory / "id_ed25519"

    @property
    def known_hosts(self) -> Path:
        """Host keys as read from inside the hosts, so nothing is trusted on first use."""
        return self.directory / "known_hosts"

    @property
    def ssh_config(self) -> Path:
        """For `ssh -F`."""
        return self.directory / "ssh_config"

    @property
    def facts(self) -> Path:
        """What the running lab is made of, for tests that reach below SSH."""
        return self.directory / "lab.json"

    @property
    def package_pool(self) -> Path:
        """Every package a host ever downloaded."""
        return self.directory / "apt" / "pool"

    def package_cache(self, host: str) -> Path:
        """/var/cache/apt/archives of one host: apt locks it, so it cannot be shared."""
        return self.directory / "apt" / host

    def log(self, name: str) -> Path:
        """Log of one long step, overwritten each time."""
        return self.directory / "log" / f"{name}.log"

    def prepare(self) -> str:
        """Make the directories, the key pair and ssh_config; return the public key."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.log("").parent.mkdir(exist_ok=True)
        public = self.key.with_suffix(".pub")
        if not self.key.exists() or not public.exists():
            self.key.unlink(missing_ok=True)
            public.unlink(missing_ok=True)
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.key)])
        write_if_changed(self.ssh_config, self.render_ssh_config())
        return public.read_text(encoding="utf-8").strip()

    def render_ssh_config(self) -> str:
        """ssh_config with the hosts by name and by address."""
        parts = [f"Host {host.name} {host.address}\n  HostName {host.address}\n" for host in HOSTS]
        parts.append(
            f"Host {' '.join(f'{host.name} {host.address}' for host in HOSTS)}\n"
            "  User root\n"
            f"  IdentityFile {self.key}\n"
            "  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {self.known_hosts}\n"
            "  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
            # A recreated host has a new key; nothing may be learnt behind known_hosts' back.
            "  UpdateHostKeys no\n"
            "  CheckHostIP no\n"
            "  ConnectTimeout 5\n"
            "  LogLevel ERROR\n"
        )
        return "".join(parts)

    def write_known_hosts(self, keys: Mapping[str, str]) -> None:
        """Record each host's public key (`ssh-ed25519 AAAA...`) under its name and address."""
        lines = [
            f"{host.name},{host.address} {keys[host.name]}\n" for host in HOSTS if host.name in keys
        ]
        write_if_changed(self.known_hosts, "".join(lines))

    def write_facts(self, facts: Mapping[str, object]) -> None:
        """Record what the lab is made of."""
        document = {
            "subnet": str(SUBNET),
            "ssh_config": str(self.ssh_config),
            "hosts": {host.name: str(host.address) for host in HOSTS},
            **facts,
        }
        write_if_changed(self.facts, json.dumps(document, indent=2) + "\n")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold off every other `up` and `down` on this machine."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.directory / "lock").open("w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def write_if_changed(path: Path, text: str) -> None:
    """Replace a file atomically, and only when its text differs."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.chmod(0o600)
    partial.replace(path)

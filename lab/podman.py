"""The few podman commands that the lab uses, and what they answer."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.commands import LabError, run
from lab.topology import LABEL, NETWORK, SUBNET

REMOVE_TIMEOUT_S = 30.0
NETWORK_NAMESPACES = Path("/run/netns")
ADDRESS_LEASES = Path("/run/containers/networks/ipam.db")
# podman takes the absence of this file for a fresh boot, and forgets what ran before.
ALIVE_MARKER = Path("/run/libpod/alive")


@dataclass(frozen=True, slots=True)
class Container:
    """A container as podman remembers it, which is not always as it is."""

    name: str
    state: str
    pid: int
    image: str
    namespace: Path | None = None
    """Where its network is mounted; None when podman knows of none."""

    @property
    def alive(self) -> bool:
        """Whether its first process exists: podman does not notice a machine's restart."""
        return self.state == "running" and Path(f"/proc/{self.pid}/cgroup").exists()


class Podman:
    """podman with the options that this machine needs."""

    def __init__(self, options: Sequence[str]) -> None:
        self.argv = ["podman", "--log-level", "error", *options]

    def call(self, *argv: str, timeout_s: float = 120.0) -> str:
        """Run one podman command and return its stdout."""
        return run([*self.argv, *argv], timeout_s=timeout_s)

    def image_exists(self, image: str) -> bool:
        """Whether an image of this name is stored."""
        return bool(self.call("images", "--quiet", "--filter", f"reference={image}").strip())

    def remove_other_images(self, repository: str, *, keep: str) -> None:
        """Delete images of earlier recipes that no container uses."""
        listed = json.loads(self.call("images", "--format", "json"))
        used = {row["ImageID"] for row in json.loads(self.call("ps", "-a", "--format", "json"))}
        for row in listed:
            names = [name for name in row.get("Names") or () if name.startswith(f"{repository}:")]
            if names and keep not in names and row["Id"] not in used:
                self.call("rmi", *names)

    def notice_restart(self) -> bool:
        """Tell podman of a restart that it slept through; return whether there was one.

        Where /run outlives a restart, podman believes that the containers of before still run,
        and fails on the first of them whose network namespace is gone. Where only their processes
        have died, the namespaces are still there: we ask for them before podman forgets them.
        """
        if not ALIVE_MARKER.exists() or container_lives():
            return False
        try:
            ours = [container.namespace for container in self.containers()]
        except LabError:  # the machine's restart took them
            ours = []
        ALIVE_MARKER.unlink()
        ADDRESS_LEASES.unlink(missing_ok=True)
        for stale in NETWORK_NAMESPACES.glob("netns-*"):
            if not os.path.ismount(stale):  # Path.is_mount() knows directories only
                stale.unlink()
        for namespace in ours:
            self.remove_namespace(namespace)
        return True

    def containers(self) -> list[Container]:
        """Every container of the lab."""
        text = self.call("ps", "-a", "--filter", f"label={LABEL}", "--format", "json")
        return [
            Container(
                row["Names"][0],
                row["State"],
                int(row["Pid"]),
                row["Image"],
                self._namespace(row["Id"]),
            )
            for row in json.loads(text)
        ]

    def remove(self, name: str) -> None:
        """Remove a container, running, stopped or dead."""
        self.call("rm", "--force", "--time", "0", "--volumes", name, timeout_s=REMOVE_TIMEOUT_S)

    def remove_namespace(self, namespace: Path | None) -> None:
        """See to it that a removed container's network is gone.

        podman unmounts it only where it has seen the container end. One that stays keeps its end
        of the bridge and the address, and answers ARP in place of the host that comes after it.
        """
        if namespace is None or namespace.parent != NETWORK_NAMESPACES:
            return
        if os.path.ismount(namespace):
            run(["umount", str(namespace)])
        namespace.unlink(missing_ok=True)

    def ensure_network(self) -> None:
        """Make the lab's network. No name server: /etc/hosts has the names."""
        if NETWORK in self._networks():
            return
        options = ("--subnet", str(SUBNET), "--label", LABEL, "--disable-dns")
        self.call("network", "create", *options, NETWORK)

    def bridge(self) -> str:
        """The interface on this machine that the hosts are attached to."""
        rows = json.loads(self.call("network", "inspect", NETWORK))
        return str(rows[0]["network_interface"])

    def remove_network(self) -> bool:
        """Remove the lab's network; False when there was none."""
        if NETWORK not in self._networks():
            return False
        self.call("network", "rm", NETWORK)
        return True

    def _namespace(self, container_id: str) -> Path | None:
        asked = ("inspect", "--type", "container", "--format", "{{.NetworkSettings.SandboxKey}}")
        said = self.call(*asked, container_id).strip()
        return Path(said) if said else None

    def _networks(self) -> dict[str, bool]:
        """Names of all networks; one of our name that is not ours is an error."""
        networks = {}
        key, _, value = LABEL.partition("=")
        for row in json.loads(self.call("network", "ls", "--format", "json")):
            networks[row["name"]] = (row.get("labels") or {}).get(key) == value
        if networks.get(NETWORK) is False:
            raise LabError(f"podman has another network called {NETWORK}: remove or rename it")
        return networks


def container_lives() -> bool:
    """Whether any process on this machine belongs to a container of podman."""
    for cgroup in Path("/proc").glob("[0-9]*/cgroup"):
        try:
            text = cgroup.read_text(encoding="ascii")
        except OSError:  # it ended meanwhile
            continue
        if "/libpod-" in text and not is_zombie(cgroup.parent):
            return True
    return False


def is_zombie(process: Path) -> bool:
    """Whether a process has ended and only waits to be collected; a vanished one counts, too."""
    try:
        stat = (process / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(") ")[2].startswith("Z")

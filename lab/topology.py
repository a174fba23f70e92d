"""Names and addresses of the lab: the one place that knows them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

NETWORK = "swarm-lab"
SUBNET = IPv4Network("10.77.0.0/24")
LABEL = "swarm.lab=1"
IMAGE_REPOSITORY = "localhost/swarm-lab"


@dataclass(frozen=True, slots=True)
class Host:
    """One VM-like host of the lab."""

    name: str
    address: IPv4Address
    aliases: tuple[str, ...] = ()

    @property
    def container(self) -> str:
        """Name of its container; prefixed, so that the user's own containers cannot clash."""
        return f"swarm-lab-{self.name}"


HOSTS: tuple[Host, ...] = (
    Host("control", IPv4Address("10.77.0.10"), aliases=("pages.lab", "hosted.lab")),
    Host("worker1", IPv4Address("10.77.0.11")),
    Host("worker2", IPv4Address("10.77.0.12")),
)


def hosts_file(hosts: tuple[Host, ...] = HOSTS) -> str:
    """/etc/hosts, the same on every host: the lab needs no name server of its own."""
    lines = [
        "127.0.0.1 localhost",
        "::1 localhost ip6-localhost ip6-loopback",
        *(" ".join((str(host.address), host.name, *host.aliases)) for host in hosts),
    ]
    return "\n".join(lines) + "\n"

"""Command line of the lab: up, down, check, ssh-config.

Exit status: 0 done, 1 failed, 2 this machine lacks something (one line says what).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from lab import packages
from lab.commands import LabError, UnmetRequirementError
from lab.fleet import Fleet
from lab.image import ensure_image
from lab.machine import FIRST_RUN_GB, LATER_RUN_GB, Machine, detect
from lab.podman import Podman
from lab.state import State, default_directory
from lab.topology import HOSTS


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and run one verb."""
    parser = argparse.ArgumentParser(prog="lab", description=__doc__)
    parser.add_argument("verb", choices=sorted(VERBS))
    verb = parser.parse_args(argv).verb
    try:
        VERBS[verb](State(default_directory()))
    except UnmetRequirementError as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 2
    except LabError as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 1
    return 0


def up(state: State) -> None:
    """Boot what is not running; leave alone what is."""
    started = time.monotonic()
    machine = require_machine(state)
    with state.locked():
        public_key = state.prepare()
        podman = Podman(machine.podman_options())
        podman.notice_restart()
        image, built = ensure_image(podman, state)
        if built:
            print(f"image {image} built in {time.monotonic() - started:.0f} s", flush=True)
        packages.share(state)
        podman.ensure_network()
        fates = Fleet(machine, podman, state).ensure(image, public_key)
        state.write_facts(
            {
                "image": image,
                "bridge": podman.bridge(),
                "containers": {host.name: host.container for host in HOSTS},
                "podman": podman.argv,
            }
        )
    for host in HOSTS:
        print(f"{host.name:<8} {host.address}  {fates[host.name].value}")
    print(f"lab is up in {time.monotonic() - started:.1f} s; ssh -F {state.ssh_config} control")


def down(state: State) -> None:
    """Remove the hosts and their network; the caches stay."""
    # A full disk is a reason to remove the lab, not an obstacle.
    machine = require_machine(state, disk_needed_gb=0)
    with state.locked():
        podman = Podman(machine.podman_options())
        podman.notice_restart()
        packages.collect(state)
        hosts = Fleet(machine, podman, state).destroy()
        network = podman.remove_network()
        state.known_hosts.unlink(missing_ok=True)
        state.facts.unlink(missing_ok=True)
    if hosts or network:
        print(f"removed {hosts} hosts and their network; caches kept in {state.directory}")
    else:
        print("no lab to remove")


def check(state: State) -> None:
    """Say whether this machine can run the lab, and how the hosts are."""
    machine = require_machine(state)
    print(f"this machine can run the lab: {machine.describe()}")
    if not state.ssh_config.exists():
        print("no lab has run here yet: make lab")
        return
    said = Fleet(machine, Podman(machine.podman_options()), state).probe_all()
    for host in HOSTS:
        print(f"{host.name:<8} {host.address}  {said[host.name]}")


def ssh_config(state: State) -> None:
    """Print the configuration that reaches the hosts."""
    print(state.render_ssh_config(), end="")


def require_machine(state: State, disk_needed_gb: float | None = None) -> Machine:
    """This machine, when it has all that the lab needs."""
    machine = detect(state.directory)
    if disk_needed_gb is None:
        disk_needed_gb = LATER_RUN_GB if state.facts.exists() else FIRST_RUN_GB
    if problems := machine.problems(disk_needed_gb):
        raise UnmetRequirementError("; ".join(problems))
    return machine


VERBS: dict[str, Callable[[State], None]] = {
    "up": up,
    "down": down,
    "check": check,
    "ssh-config": ssh_config,
}

if __name__ == "__main__":
    sys.exit(main())

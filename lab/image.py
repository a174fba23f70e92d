"""The hosts' image: Debian from its own packages, no container registry; cached by its recipe."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from lab.commands import run, run_logged
from lab.podman import Podman
from lab.state import State
from lab.topology import IMAGE_REPOSITORY, hosts_file

SUITE = "bookworm"
# A small VM image, not a container image: what an operator finds on a fresh Debian server.
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "libpam-systemd",
    "openssh-server",
    "python3",
    "python3-apt",
    "sudo",
    "iproute2",
    "iputils-ping",
    "nftables",
    "ca-certificates",
    "procps",
    "netbase",
)
# The host keys must differ between hosts made from one image.
HOST_KEYS_UNIT = """\
[Unit]
Description=Generate this host's SSH keys
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
"""
APT_SETTINGS = 'Acquire::Languages "none";\nAPT::Keep-Downloaded-Packages "true";\n'
# Proxies and clock checks are the machine's business: the hosts use what it uses.
INHERITED_APT_SETTINGS = (
    "Acquire::http::Proxy",
    "Acquire::https::Proxy",
    "Acquire::Check-Date",
    "Acquire::Check-Valid-Until",
)
# Unattended upgrades would hold apt's lock under a running play; a container has no consoles.
MASKED_UNITS = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "console-getty.service",
    "getty@tty1.service",
    "systemd-networkd-wait-online.service",
)
BUILD_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the content of the image."""

    suite: str
    packages: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    apt_options: tuple[str, ...]

    @property
    def tag(self) -> str:
        """Hash of the recipe."""
        parts = [self.suite, self.packages, self.files, self.commands, self.apt_options]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    @property
    def image(self) -> str:
        """Name of the image made from it."""
        return f"{IMAGE_REPOSITORY}:{self.tag}"


def make_recipe(inherited: tuple[str, ...]) -> Recipe:
    """The recipe; `inherited` are lines of apt.conf that this machine sets for itself."""
    return Recipe(
        suite=SUITE,
        packages=PACKAGES,
        files=(
            ("/etc/systemd/system/ssh-host-keys.service", HOST_KEYS_UNIT),
            ("/etc/apt/apt.conf.d/90lab", APT_SETTINGS + "".join(f"{i}\n" for i in inherited)),
            ("/etc/hosts", hosts_file()),
        ),
        commands=(
            'rm -f "$1"/etc/ssh/ssh_host_*',
            'chroot "$1" systemctl --quiet enable ssh-host-keys.service ssh.service',
            f'chroot "$1" systemctl --quiet mask {" ".join(MASKED_UNITS)}',
            'rm -f "$1"/etc/hostname "$1"/etc/resolv.conf',
            # A persistent journal, as on a VM.
            'mkdir -p "$1"/var/log/journal',
            ': > "$1"/etc/machine-id',
        ),
        apt_options=inherited,
    )


def inherited_apt_settings(dump: str) -> tuple[str, ...]:
    """Those lines of `apt-config dump` that the hosts need as well."""
    wanted = tuple(f"{name} " for name in INHERITED_APT_SETTINGS)
    return tuple(sorted(line for line in dump.splitlines() if line.startswith(wanted)))


def ensure_image(podman: Podman, state: State) -> tuple[str, bool]:
    """Build the image unless the recipe's is there; return its name and whether it was built."""
    recipe = make_recipe(inherited_apt_settings(run(["apt-config", "dump", "Acquire"])))
    if podman.image_exists(recipe.image):
        return recipe.image, False
    tarball = state.directory / "image.tar.partial"
    try:
        run_logged(bootstrap_argv(recipe, tarball), state.log("image"), timeout_s=BUILD_TIMEOUT_S)
        # No label: a container would inherit it, and be taken for one of the lab's.
        podman.call("import", str(tarball), recipe.image)
    finally:
        tarball.unlink(missing_ok=True)
    podman.remove_other_images(IMAGE_REPOSITORY, keep=recipe.image)
    return recipe.image, True


def bootstrap_argv(recipe: Recipe, tarball: Path) -> list[str]:
    """Command line of mmdebstrap; without a mirror it uses deb.debian.org and security."""
    argv = ["mmdebstrap", "--variant=minbase", f"--include={','.join(recipe.packages)}"]
    argv += [f"--aptopt={option}" for option in recipe.apt_options]
    for path, text in recipe.files:
        write = f'printf %s {shlex.quote(text)} > "$1"{shlex.quote(path)}'
        argv.append(f"--customize-hook={write}")
    argv += [f"--customize-hook={command}" for command in recipe.commands]
    return [*argv, "--format=tar", recipe.suite, str(tarball)]

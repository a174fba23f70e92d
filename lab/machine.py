"""What this machine is and what it lacks: detected, never assumed."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# Bit numbers in /proc/self/status, from linux/capability.h.
CAPABILITIES = {"NET_ADMIN": 12, "SYS_CHROOT": 18, "SYS_PTRACE": 19, "SYS_ADMIN": 21, "MKNOD": 27}
CAP_SYS_RESOURCE = 24

PROGRAMS = {
    "podman": "podman",
    "conmon": "conmon",
    "mmdebstrap": "mmdebstrap",
    "iptables": "iptables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
NETAVARK = (Path("/usr/lib/podman/netavark"), Path("/usr/libexec/podman/netavark"))
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# Image, three hosts and the packages that a deployment adds to them; later only what tasks leave.
FIRST_RUN_GB = 6.0
LATER_RUN_GB = 1.0
# podman lowers its own limit to this before it starts anything.
PODMAN_NPROC = 32768


@dataclass(frozen=True, slots=True)
class Machine:
    """Facts about the machine that decide how hosts are run."""

    root: bool
    cgroup_version: int
    systemd_hierarchy: bool
    oci_runtime: str | None
    ca_bundle: Path | None
    capabilities: int
    missing_packages: tuple[str, ...]
    systemd_running: bool
    apparmor: bool
    nofile: int
    nproc: int
    free_gb: float

    def problems(self, disk_needed_gb: float = FIRST_RUN_GB) -> list[str]:
        """Everything that keeps the lab from running, each with what to do about it."""
        found = []
        if not self.root:
            found.append("not root: run it as root")
        if self.missing_packages:
            found.append(f"missing {' '.join(self.missing_packages)}: run `make setup`")
        elif self.oci_runtime is None:
            wanted = "runc" if self.cgroup_version == 1 else "crun or runc"
            found.append(f"no OCI runtime for cgroup v{self.cgroup_version}: apt install {wanted}")
        lacking = [n for n, bit in CAPABILITIES.items() if not self.capabilities >> bit & 1]
        if self.root and lacking:
            found.append(
                f"no right to {', '.join(f'CAP_{name}' for name in lacking)}: "
                "use a VM, or a container started with --privileged"
            )
        if not self.systemd_hierarchy:
            found.append(
                "no systemd cgroup hierarchy: mkdir -p /sys/fs/cgroup/systemd && "
                "mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd"
            )
        if self.free_gb < disk_needed_gb:
            found.append(f"{self.free_gb:.1f} GB of disk free: the lab needs {disk_needed_gb:.0f}")
        return found

    def podman_options(self) -> list[str]:
        """Options of podman itself."""
        options = [] if self.systemd_running else ["--cgroup-manager", "cgroupfs"]
        return [*options, "--runtime", self.oci_runtime] if self.oci_runtime else options

    def run_options(self) -> list[str]:
        """Options of `podman run` that depend on the machine."""
        # The profile for containers forbids the mounts that systemd's sandboxing is made of.
        options = ["--security-opt", "apparmor=unconfined"] if self.apparmor else []
        if not self.capabilities >> CAP_SYS_RESOURCE & 1:
            # podman asks for more than the hard limit, which needs CAP_SYS_RESOURCE.
            options += ["--ulimit", f"nofile={self.nofile}:{self.nofile}"]
            options += ["--ulimit", f"nproc={self.nproc}:{self.nproc}"]
        return options

    def describe(self) -> str:
        """One line for people."""
        ca = self.ca_bundle or "the hosts' own"
        return f"cgroup v{self.cgroup_version}, {self.oci_runtime}, CA bundle {ca}"


def detect(disk: Path, environ: Mapping[str, str] = os.environ) -> Machine:
    """Look at this machine; `disk` is where the lab keeps its files."""
    version = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
    existing = next(p for p in (disk, *disk.parents) if p.exists())
    return Machine(
        root=os.geteuid() == 0,
        cgroup_version=version,
        systemd_hierarchy=version == 2 or Path("/sys/fs/cgroup/systemd/cgroup.procs").exists(),
        oci_runtime=find_runtime(version),
        ca_bundle=find_ca_bundle(environ),
        capabilities=read_capabilities(Path("/proc/self/status").read_text(encoding="ascii")),
        missing_packages=find_missing_packages(),
        systemd_running=Path("/run/systemd/system").is_dir(),
        apparmor=read_flag(Path("/sys/module/apparmor/parameters/enabled")),
        nofile=hard_limit(resource.RLIMIT_NOFILE),
        nproc=min(hard_limit(resource.RLIMIT_NPROC), PODMAN_NPROC),
        free_gb=shutil.disk_usage(existing).free / 1e9,
    )


def find_runtime(cgroup_version: int) -> str | None:
    """Debian 12's crun refuses to start systemd on a hybrid cgroup v1 machine; runc does both."""
    names = ("runc",) if cgroup_version == 1 else ("crun", "runc")
    return next((name for name in names if shutil.which(name)), None)


def find_missing_packages() -> tuple[str, ...]:
    """Debian packages whose programs are absent."""
    missing = {package for program, package in PROGRAMS.items() if not shutil.which(program)}
    if not any(path.exists() for path in NETAVARK):
        missing.add("netavark")
    if not KEYRING.exists():
        missing.add("debian-archive-keyring")
    return tuple(sorted(missing))


def find_ca_bundle(environ: Mapping[str, str]) -> Path | None:
    """The bundle this machine trusts; the hosts trust it too, for machines behind a private CA."""
    named = environ.get("SSL_CERT_FILE")
    candidates = [Path(named)] if named else []
    return next((path for path in (*candidates, CA_BUNDLE) if path.is_file()), None)


def read_capabilities(status: str) -> int:
    """Effective capabilities as a bit mask."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return int(line.split()[1], 16)


def read_flag(path: Path) -> bool:
    """A kernel parameter that reads Y or N; absent means N."""
    return path.exists() and path.read_text(encoding="ascii").startswith("Y")


def hard_limit(kind: int) -> int:
    """A finite number: podman takes no "infinity"."""
    limit = resource.getrlimit(kind)[1]
    return 1_048_576 if limit == resource.RLIM_INFINITY else limit

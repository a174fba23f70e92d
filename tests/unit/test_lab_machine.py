"""What the lab makes of a machine."""

import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lab.machine import (
    CAPABILITIES,
    Machine,
    detect,
    find_ca_bundle,
    find_runtime,
    hard_limit,
    read_capabilities,
    read_flag,
)

ALL = (1 << 41) - 1
GOOD = Machine(
    root=True,
    cgroup_version=2,
    systemd_hierarchy=True,
    oci_runtime="crun",
    ca_bundle=None,
    capabilities=ALL,
    missing_packages=(),
    systemd_running=True,
    apparmor=False,
    nofile=1_048_576,
    nproc=32768,
    free_gb=50.0,
)


def test_a_good_machine_has_no_problem_and_needs_no_option() -> None:
    assert GOOD.problems() == []
    assert GOOD.podman_options() == ["--runtime", "crun"]
    assert GOOD.run_options() == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"root": False}, "not root: run it as root"),
        ({"missing_packages": ("podman", "runc")}, "missing podman runc: run `make setup`"),
        ({"oci_runtime": None}, "no OCI runtime for cgroup v2: apt install crun or runc"),
        ({"oci_runtime": None, "cgroup_version": 1}, "no OCI runtime for cgroup v1: apt inst"),
        ({"systemd_hierarchy": False}, "no systemd cgroup hierarchy: mkdir"),
        ({"free_gb": 1.25}, "1.2 GB of disk free: the lab needs 6"),
        (
            {"capabilities": ALL & ~(1 << CAPABILITIES["SYS_ADMIN"])},
            "no right to CAP_SYS_ADMIN: use a VM, or a container started with --privileged",
        ),
    ],
)
def test_each_lack_is_one_problem_that_says_what_to_do(
    change: dict[str, object], expected: str
) -> None:
    problems = replace(GOOD, **change).problems()  # type: ignore[arg-type]
    assert len(problems) == 1
    assert problems[0].startswith(expected)
    assert "\n" not in problems[0]


def test_all_problems_are_told_at_once() -> None:
    assert len(replace(GOOD, root=False, free_gb=0.0, missing_packages=("podman",)).problems()) == 3


def test_limits_are_given_only_without_the_right_to_raise_them() -> None:
    without = replace(GOOD, capabilities=ALL & ~(1 << 24), nofile=20000, nproc=4000)
    assert without.run_options() == [
        *("--ulimit", "nofile=20000:20000"),
        *("--ulimit", "nproc=4000:4000"),
    ]


def test_a_lab_that_runs_needs_little_disk_and_its_removal_none() -> None:
    assert replace(GOOD, free_gb=2.0).problems(disk_needed_gb=1.0) == []
    assert replace(GOOD, free_gb=0.0).problems(disk_needed_gb=0) == []
    assert replace(GOOD, free_gb=2.0).problems() != []


def test_apparmor_and_absent_systemd_are_taken_into_account() -> None:
    assert replace(GOOD, apparmor=True).run_options() == ["--security-opt", "apparmor=unconfined"]
    options = replace(GOOD, systemd_running=False).podman_options()
    assert options[:2] == ["--cgroup-manager", "cgroupfs"]


@pytest.mark.parametrize(
    ("version", "installed", "expected"),
    [
        (1, {"crun", "runc"}, "runc"),
        (1, {"crun"}, None),
        (2, {"crun", "runc"}, "crun"),
        (2, {"runc"}, "runc"),
        (2, set(), None),
    ],
)
def test_crun_is_never_used_with_cgroup_v1(
    monkeypatch: pytest.MonkeyPatch, version: int, installed: set[str], expected: str | None
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name in installed else None)
    assert find_runtime(version) == expected


def test_capabilities_are_read_from_the_effective_set() -> None:
    status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000200000\n"
    assert read_capabilities(status) == 1 << CAPABILITIES["SYS_ADMIN"]


def test_the_named_ca_bundle_comes_first_when_it_exists(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    absent = find_ca_bundle({"SSL_CERT_FILE": str(bundle)})
    assert absent != bundle
    bundle.touch()
    assert find_ca_bundle({"SSL_CERT_FILE": str(bundle)}) == bundle


def test_kernel_flag(tmp_path: Path) -> None:
    flag = tmp_path / "enabled"
    assert not read_flag(flag)
    flag.write_text("Y\n")
    assert read_flag(flag)


def test_unlimited_becomes_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, resource.RLIM_INFINITY))
    assert hard_limit(resource.RLIMIT_NOFILE) == 1_048_576


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    found = detect(tmp_path / "not" / "there", {})
    assert found.cgroup_version in (1, 2)
    assert found.free_gb > 0
    assert found.describe().startswith(f"cgroup v{found.cgroup_version}, ")

"""What `up` does with hosts that run, that died, that changed, or that are not of today's lab."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab import fleet as fleet_module
from lab import podman as podman_module
from lab.commands import LabError
from lab.fleet import Fate, Fleet
from lab.machine import Machine
from lab.podman import Container, Podman
from lab.state import State
from lab.topology import HOSTS, Host

MACHINE = Machine(
    root=True,
    cgroup_version=2,
    systemd_hierarchy=True,
    oci_runtime="crun",
    ca_bundle=None,
    capabilities=(1 << 41) - 1,
    missing_packages=(),
    systemd_running=True,
    apparmor=False,
    nofile=1_048_576,
    nproc=32768,
    free_gb=50.0,
)
DEAD_PID = 2**22 + 1


class FakePodman(Podman):
    """Remembers containers; starting one makes it answer."""

    def __init__(self, *containers: Container) -> None:
        super().__init__([])
        self.present = {container.name: container for container in containers}
        self.started: list[str] = []
        self.removed: list[str] = []
        self.namespaces_removed: list[Path | None] = []
        self.failures = 0

    def containers(self) -> list[Container]:
        return list(self.present.values())

    def remove(self, name: str) -> None:
        if self.failures:
            self.failures -= 1
            raise LabError("leftovers")
        del self.present[name]
        self.removed.append(name)

    def remove_namespace(self, namespace: Path | None) -> None:
        assert not self.failures, "before the container is gone"
        self.namespaces_removed.append(namespace)

    def call(self, *argv: str, timeout_s: float = 120.0) -> str:
        if argv[0] == "exec":
            return f"ssh-ed25519 KEY-OF-{argv[1]} root"
        assert argv[0] == "run"
        name = argv[argv.index("--name") + 1]
        assert name not in self.present, "podman refuses a name that is taken"
        image = argv[argv.index("/bin/sh") - 1]
        self.present[name] = Container(name, "running", os.getpid(), image)
        self.started.append(name)
        return ""


def running(name: str, image: str = "img:1") -> Container:
    return Container(f"swarm-lab-{name}", "running", os.getpid(), image)


@pytest.fixture
def make_fleet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Fleet]:
    def make(*containers: Container, silent: tuple[str, ...] = ()) -> Fleet:
        podman = FakePodman(*containers)

        def probe(_: Fleet, host: Host) -> str:
            if host.name in silent and host.container not in podman.started:
                return "away"
            return "running" if host.container in podman.present else "away"

        monkeypatch.setattr(fleet_module, "PATIENCE_S", 0.0)
        monkeypatch.setattr(fleet_module, "POLL_S", 0.0)
        monkeypatch.setattr(Fleet, "probe", probe)
        return Fleet(MACHINE, podman, State(tmp_path))

    return make


def ensure(fleet: Fleet) -> tuple[list[Fate], FakePodman]:
    fates = fleet.ensure("img:1", "ssh-ed25519 PUBLIC")
    assert isinstance(fleet.podman, FakePodman)
    return [fates[host.name] for host in HOSTS], fleet.podman


def test_an_empty_machine_gets_all_hosts(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet()
    fates, podman = ensure(fleet)
    assert fates == [Fate.STARTED] * 3
    assert podman.started == [host.container for host in HOSTS]
    known = fleet.state.known_hosts.read_text()
    assert "control,10.77.0.10 ssh-ed25519 KEY-OF-swarm-lab-control\n" in known


def test_hosts_that_answer_are_left_alone(make_fleet: Callable[..., Fleet]) -> None:
    fates, podman = ensure(make_fleet(*(running(host.name) for host in HOSTS)))
    assert fates == [Fate.KEPT] * 3
    assert podman.started == podman.removed == []


@pytest.mark.parametrize(
    ("worker2", "silent", "fate"),
    [
        (replace(running("worker2"), state="exited"), (), Fate.REPLACED),
        (replace(running("worker2"), pid=DEAD_PID), (), Fate.REPLACED),
        (running("worker2"), ("worker2",), Fate.REPLACED),
        (running("worker2", "img:0"), (), Fate.RENEWED),
    ],
    ids=["exited", "podman thinks it runs", "no answer over SSH", "old image"],
)
def test_only_the_host_that_needs_it_is_replaced(
    make_fleet: Callable[..., Fleet], worker2: Container, silent: tuple[str, ...], fate: Fate
) -> None:
    fates, podman = ensure(
        make_fleet(running("control"), running("worker1"), worker2, silent=silent)
    )
    assert fates == [Fate.KEPT, Fate.KEPT, fate]
    assert podman.removed == podman.started == ["swarm-lab-worker2"]


def test_containers_of_an_earlier_lab_give_up_their_addresses(
    make_fleet: Callable[..., Fleet],
) -> None:
    _, podman = ensure(make_fleet(running("worker9")))
    assert podman.removed == ["swarm-lab-worker9"]


def test_removal_is_tried_twice_and_then_fails(make_fleet: Callable[..., Fleet]) -> None:
    fleet = make_fleet(running("control"))
    assert isinstance(fleet.podman, FakePodman)
    fleet.podman.failures = 1
    assert fleet.destroy() == 1
    fleet.podman.present["swarm-lab-control"] = running("control")
    fleet.podman.failures = 2
    with pytest.raises(LabError, match="leftovers"):
        fleet.destroy()


def test_a_host_that_is_replaced_takes_its_own_network_along(
    make_fleet: Callable[..., Fleet],
) -> None:
    namespaces = {host.name: Path(f"/run/netns/netns-{host.name}") for host in HOSTS}
    hosts = [replace(running(name), namespace=path) for name, path in namespaces.items()]
    fleet = make_fleet(*hosts, silent=("worker2",))
    assert isinstance(fleet.podman, FakePodman)
    fleet.podman.failures = 1
    ensure(fleet)
    assert fleet.podman.namespaces_removed == [namespaces["worker2"]]


class ToldPodman(Podman):
    """Has these answers for `podman ps` and `podman inspect`."""

    def __init__(self, namespaces: dict[str, str], *, fails: bool = False) -> None:
        super().__init__([])
        self.namespaces = namespaces
        self.fails = fails

    def call(self, *argv: str, timeout_s: float = 120.0) -> str:
        if self.fails:
            raise LabError("joining network namespace: unknown FS magic")
        if argv[0] == "ps":
            assert "label=swarm.lab=1" in argv
            rows = [
                {"Id": name, "Names": [name], "State": "running", "Pid": DEAD_PID, "Image": "img:1"}
                for name in self.namespaces
            ]
            return json.dumps(rows)
        assert argv[0] == "inspect"
        return f"{self.namespaces[argv[-1]]}\n"


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is mounted: namespaces of the lab's own and another's. Paths, as the kernel has them."""
    directory = tmp_path / "netns"
    directory.mkdir(exist_ok=True)
    paths = [str(directory / name) for name in ("netns-ours", "netns-other")]
    for path in paths:
        Path(path).touch()

    def umount(argv: list[str], **_: object) -> str:
        assert argv[0] == "umount"
        paths.remove(argv[1])
        return ""

    monkeypatch.setattr(podman_module, "NETWORK_NAMESPACES", directory)
    monkeypatch.setattr(podman_module, "run", umount)
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) in paths)
    return paths


def test_a_namespace_that_podman_left_is_unmounted(mounted: list[str]) -> None:
    ours, other = mounted
    Podman([]).remove_namespace(Path(ours))
    assert mounted == [other]
    assert not Path(ours).exists()
    Podman([]).remove_namespace(Path(ours))
    Podman([]).remove_namespace(None)
    assert mounted == [other], "nothing is left to do"


def test_nothing_outside_podmans_directory_is_unmounted(mounted: list[str], tmp_path: Path) -> None:
    elsewhere = tmp_path / "netns-ours"
    elsewhere.touch()
    mounted.append(str(elsewhere))
    Podman([]).remove_namespace(elsewhere)
    assert len(mounted) == 3
    assert elsewhere.exists()


def test_hosts_that_died_without_podman_leave_no_namespace_and_others_keep_theirs(
    monkeypatch: pytest.MonkeyPatch, remains: list[Path], mounted: list[str]
) -> None:
    ours, other = mounted
    monkeypatch.setattr(podman_module, "container_lives", lambda: False)
    assert ToldPodman({"swarm-lab-control": ours, "swarm-lab-worker1": ""}).notice_restart()
    assert mounted == [other]
    assert [file for file in remains if file.exists()] == []


@pytest.fixture
def remains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """What podman leaves under /run when the machine goes down under it."""
    namespaces = tmp_path / "netns"
    namespaces.mkdir()
    files = [tmp_path / "alive", tmp_path / "ipam.db", namespaces / "netns-1"]
    for file in files:
        file.touch()
    monkeypatch.setattr(podman_module, "ALIVE_MARKER", files[0])
    monkeypatch.setattr(podman_module, "ADDRESS_LEASES", files[1])
    monkeypatch.setattr(podman_module, "NETWORK_NAMESPACES", namespaces)
    return files


@pytest.mark.parametrize("fails", [False, True], ids=["podman answers", "podman fails"])
def test_after_a_restart_podman_is_told(
    monkeypatch: pytest.MonkeyPatch, remains: list[Path], *, fails: bool
) -> None:
    monkeypatch.setattr(podman_module, "container_lives", lambda: False)
    podman = ToldPodman({}, fails=fails)
    assert podman.notice_restart()
    assert [file for file in remains if file.exists()] == []
    assert not podman.notice_restart(), "the next call finds nothing to do"


def test_nothing_is_touched_while_any_container_lives(
    monkeypatch: pytest.MonkeyPatch, remains: list[Path]
) -> None:
    monkeypatch.setattr(podman_module, "container_lives", lambda: True)
    assert not Podman([]).notice_restart()
    assert all(file.exists() for file in remains)

"""What is read of a unit's processes, and when that is nothing at all."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from swarm import witness
from swarm.witness import Witness
from tests.builders import make_cgroups

GROUP = "/swarm.slice/celery-browser@3.service"
RENDERER = b"chromium\0--type=renderer\0"
TICKS = os.sysconf("SC_CLK_TCK")


def add_process(
    proc: Path, pid: int, command: bytes, *, name: str = "chromium", ticks: int = 0
) -> None:
    directory = proc / str(pid)
    directory.mkdir(parents=True)
    (directory / "cmdline").write_bytes(command)
    before = "S 1 1 1 0 -1 4194560 100 200 0 0"
    (directory / "stat").write_text(f"{pid} ({name}) {before} {ticks} 1 2 3 20 0 1 0 5\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    proc = tmp_path / "proc"
    add_process(proc, 10, b"python\0swarm\0worker\0", name="swarm", ticks=2 * TICKS - 6)
    add_process(proc, 11, b"chromium\0--headless\0", name="a) R (b")
    add_process(proc, 12, b"chromium\0--type=zygote\0")
    return proc


def look(root: Path, proc: Path, main_pid: int = 10) -> Witness | None:
    return witness.look(GROUP, main_pid, roots=(root / "absent", root), proc=proc)


def test_processes_of_a_unit_are_counted_and_their_time_is_added_up(
    tmp_path: Path, proc: Path
) -> None:
    root = make_cgroups(tmp_path / "cgroup", GROUP, 10, 11, 12)
    ticks = 2 * TICKS - 6 + 3 * 6
    expected = Witness(processes=3, renderers=0, cpu_s=round(ticks / TICKS, 2))
    assert look(root, proc) == expected


@pytest.mark.parametrize("command", [RENDERER, b"chromium --type=renderer --lang=en\0"])
def test_each_renderer_is_a_page_however_it_writes_its_command(
    tmp_path: Path, proc: Path, command: bytes
) -> None:
    add_process(proc, 13, command)
    root = make_cgroups(tmp_path / "cgroup", GROUP, 10, 11, 12, 13)
    found = look(root, proc)
    assert found is not None
    assert found.renderers == 1


def test_what_hangs_below_the_unit_is_its_own_and_what_stands_beside_is_not(
    tmp_path: Path, proc: Path
) -> None:
    add_process(proc, 13, RENDERER)
    add_process(proc, 14, RENDERER)
    root = make_cgroups(tmp_path / "cgroup", GROUP, 10)
    make_cgroups(root, f"{GROUP}/pages/one", 13)
    make_cgroups(root, "/swarm.slice/celery-browser@4.service", 14)
    found = look(root, proc)
    assert found is not None
    assert (found.processes, found.renderers) == (2, 1)


def test_one_that_ended_meanwhile_is_passed_over(tmp_path: Path, proc: Path) -> None:
    root = make_cgroups(tmp_path / "cgroup", GROUP, 10, 99)
    found = look(root, proc)
    assert found is not None
    assert found.processes == 1


@pytest.mark.parametrize(
    ("group", "pids"),
    [(GROUP, ()), (GROUP, (11,)), (GROUP, (10, 11)), ("", (11,)), ("/elsewhere", (11,))],
    ids=["empty", "without its main process", "hidden", "no cgroup", "another"],
)
def test_what_cannot_be_seen_is_no_witness(
    tmp_path: Path, proc: Path, group: str, pids: tuple[int, ...]
) -> None:
    """Where processes of other users are hidden, none seems to be there."""
    for name in ("cmdline", "stat"):
        (proc / "10" / name).unlink()
    root = make_cgroups(tmp_path / "cgroup", GROUP, *pids)
    assert witness.look(group, 10, roots=(root,), proc=proc) is None


def test_a_process_that_may_not_be_read_is_not_passed_over(
    tmp_path: Path, proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_cgroups(tmp_path / "cgroup", GROUP, 10, 11)
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path == proc / "11" / "stat":
            raise PermissionError
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert look(root, proc) is None


def test_this_process_is_read_as_it_is(tmp_path: Path) -> None:
    root = make_cgroups(tmp_path, GROUP, os.getpid())
    found = witness.look(GROUP, os.getpid(), roots=(root,))
    assert found is not None
    assert (found.processes, found.renderers) == (1, 0)
    assert 0 < found.cpu_s < 100_000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_the_scalers_user_may_read_it_all() -> None:
    program = (
        "import os, pathlib, sys; from swarm import witness\n"
        "os.setgid(4711); os.setuid(4711)\n"
        "print(witness.look(sys.argv[1], int(sys.argv[2]), roots=(pathlib.Path(sys.argv[3]),)))"
    )
    with tempfile.TemporaryDirectory() as directory:
        root = make_cgroups(Path(directory), GROUP, os.getpid())
        root.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", program, GROUP, str(os.getpid()), str(root)],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.startswith("Witness(processes=1, renderers=0, ")

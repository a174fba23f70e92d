"""Room for another task, by what a cgroup says."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.worker.load import Load, own_cgroup
from tests.builders import make_cgroup

GIB = 2**30


def load(directory: Path | None, *, memory_share: float = 0.9, pids_share: float = 0.9) -> Load:
    return Load(directory, memory_share=memory_share, pids_share=pids_share)


def look(found: Load) -> str | None:
    found.look()
    return found.reason


@pytest.mark.parametrize(
    ("memory", "pids", "reason"),
    [
        (GIB, 50, None),
        (int(1.35 * GIB), 90, None),
        (int(1.38 * GIB), 50, "memory 92 % of 1.5 GiB"),
        (GIB, 91, "pids 91 % of 100"),
        (2 * GIB, 100, "memory 133 % of 1.5 GiB, pids 100 % of 100"),
    ],
)
def test_above_a_share_of_the_lower_limit(
    tmp_path: Path, memory: int, pids: int, reason: str | None
) -> None:
    found = load(make_cgroup(tmp_path / "unit", memory=memory, pids=pids))
    assert look(found) == reason
    assert found.is_paused == (reason is not None)


def test_it_goes_on_only_when_it_is_clearly_below(tmp_path: Path) -> None:
    unit = tmp_path / "unit"
    found = load(make_cgroup(unit, pids=91))
    told = []
    for pids in (91, 89, 86, 85, 89, 90, 91):
        make_cgroup(unit, pids=pids)
        told.append(look(found) is not None)
    assert told == [True, True, True, False, False, False, True]


def test_one_resource_does_not_lend_another_its_clearance(tmp_path: Path) -> None:
    unit = tmp_path / "unit"
    found = load(make_cgroup(unit, pids=91))
    look(found)
    make_cgroup(unit, pids=50, memory=int(0.88 * 1.5 * GIB))
    assert look(found) is None


def test_cached_files_are_no_want_of_memory(tmp_path: Path) -> None:
    stat = f"anon 1000\ninactive_file {GIB // 4}\nactive_file {GIB // 8}\nslab_reclaimable 1024\n"
    found = load(make_cgroup(tmp_path / "unit", memory=int(1.5 * GIB), stat=stat))
    assert look(found) is None
    assert found.uses[0].used == int(1.5 * GIB) - GIB // 4 - GIB // 8 - 1024


@pytest.mark.parametrize(
    "files",
    [
        {"memory.high": "max\n", "memory.max": "max\n"},
        {"memory.current": "unreadable\n"},
        {"memory.high": "0\n", "memory.max": "max\n"},
    ],
)
def test_what_has_no_limit_never_pauses(tmp_path: Path, files: dict[str, str]) -> None:
    found = load(make_cgroup(tmp_path / "unit", memory=9 * GIB, files=files))
    assert look(found) is None
    assert [use.resource for use in found.uses] == ["pids"]


@pytest.mark.parametrize("directory", [None, Path("/absent")])
def test_without_a_cgroup_nothing_pauses(directory: Path | None) -> None:
    found = load(directory)
    assert look(found) is None
    assert found.uses == ()


def test_its_own_cgroup_is_found_by_the_kernels_word(tmp_path: Path) -> None:
    unit = make_cgroup(tmp_path / "celery-browser@1.service")
    proc = tmp_path / "proc"
    proc.write_text("1:name=systemd:/x\n0::/celery-browser@1.service\n")
    assert own_cgroup(proc, tmp_path) == unit


@pytest.mark.parametrize("text", ["", "4:memory:/x\n", "0::/absent\n"])
def test_without_the_second_version_there_is_none(tmp_path: Path, text: str) -> None:
    proc = tmp_path / "proc"
    proc.write_text(text)
    assert own_cgroup(proc, tmp_path) is None
    assert own_cgroup(tmp_path / "absent", tmp_path) is None

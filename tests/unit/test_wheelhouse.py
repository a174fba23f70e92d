"""The wheelhouse: what goes in, and when its name changes."""

import hashlib
import json
import os
import shutil
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from playbooks import wheelhouse
from playbooks.wheelhouse import BuildError, Pin, build, build_project, parse_lock, prune

REPOSITORY = Path(__file__).resolve().parents[2]
LOCK = """\
# a comment
one==1.0 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via swarm
old==2.0 ; python_full_version < '3.11.3' \\
    --hash=sha256:cc
windows==3.0 ; sys_platform == 'win32' \\
    --hash=sha256:dd
new==4.0 ; python_full_version >= '3.11.3' \\
    --hash=sha256:ee
"""


def test_lock_is_read_for_the_hosts_and_not_for_this_python() -> None:
    pins = [pin for pin in parse_lock(LOCK) if pin.applies()]
    assert "".join(pin.render() for pin in pins) == (
        "one==1.0 --hash=sha256:aa --hash=sha256:bb\nold==2.0 --hash=sha256:cc\n"
    )


def test_a_pin_without_a_hash_is_refused() -> None:
    with pytest.raises(BuildError, match=r"no hash for 'one==1\.0'"):
        list(parse_lock("one==1.0\n"))


@pytest.mark.parametrize("lock", ["runtime", "dev"])
def test_the_committed_locks_are_whole_and_name_no_index(lock: str) -> None:
    text = (REPOSITORY / "requirements" / f"{lock}.txt").read_text()
    pins = list(parse_lock(text))
    assert len(pins) > 40
    assert "://" not in text
    assert {"celery", "playwright", "redis"} <= {pin.name for pin in pins}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "swarm").mkdir(parents=True)
    (root / "requirements").mkdir()
    (root / "swarm" / "__init__.py").write_text("")
    for name in ("pyproject.toml", "LICENSE", ".gitignore"):
        shutil.copy(REPOSITORY / name, root / name)
    (root / "requirements" / "runtime.txt").write_text(LOCK)
    (root / "requirements" / "dev.txt").write_text("uv==9.9 --hash=sha256:ff\n")
    return root


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Replace the downloads, not the build: which pins were asked for, each time."""
    calls: list[list[str]] = []
    real = wheelhouse.pip

    def pip(*arguments: str) -> None:
        if arguments[0] != "download":
            real(*arguments)
            return
        lock = Path(arguments[-1])
        calls.append([line.split("==")[0] for line in lock.read_text().splitlines()])
        (lock.parent / "one-1.0-py3-none-any.whl").write_bytes(b"wheel")

    monkeypatch.setattr(wheelhouse, "pip", pip)
    return calls


def test_nothing_changed_means_the_same_release_without_work(
    project: Path, tmp_path: Path, fetched: list[list[str]]
) -> None:
    cache = tmp_path / "cache"
    first = build(project, cache)
    os.utime(project / "swarm" / "__init__.py", (1, 1))
    assert build(project, cache) == first
    assert fetched == [["one", "old", "uv"]]
    requirements = Path(first["requirements"]).read_text().splitlines()
    own = next(Path(first["directory"]).glob("swarm-*.whl"))
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    assert requirements[-1] == f"swarm==0.1.0 --hash=sha256:{digest}"
    assert len(requirements) == 3, "uv is shipped along but is no part of the release"


def test_another_machine_gets_the_same_release(
    project: Path, tmp_path: Path, fetched: list[list[str]]
) -> None:
    first = build(project, tmp_path / "cache")
    copy = tmp_path / "elsewhere" / "clone"
    shutil.copytree(project, copy, copy_function=shutil.copy)
    (copy / "swarm" / "__pycache__").mkdir()
    (copy / "swarm" / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert build(copy, tmp_path / "cache2")["release_id"] == first["release_id"]


@pytest.mark.parametrize("changed", ["swarm/__init__.py", "requirements/runtime.txt"])
def test_a_change_makes_a_new_release(
    project: Path, tmp_path: Path, fetched: list[list[str]], changed: str
) -> None:
    first = build(project, tmp_path / "cache")
    with (project / changed).open("a") as file:
        file.write("# changed\n")
    second = build(project, tmp_path / "cache")
    assert second["release_id"] != first["release_id"]
    assert Path(first["directory"]).is_dir(), "the earlier one stays, for a rollback"
    assert len(fetched) == 1, "the packages are the same, so nothing is fetched again"


def test_a_failed_build_leaves_nothing_behind(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "pyproject.toml").write_text("[build-system]\nrequires = []\nbuild-backend = 'no'\n")
    cache = tmp_path / "cache"
    assert wheelhouse.main([f"--root={project}", f"--cache={cache}"]) == 1
    assert "wheelhouse: pip wheel exited" in capsys.readouterr().err
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_output_is_one_json_object(
    project: Path, tmp_path: Path, fetched: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert wheelhouse.main([f"--root={project}", f"--cache={tmp_path}/cache"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer) == {"release_id", "directory", "requirements"}
    assert len(answer["release_id"]) == 12


def test_the_wheel_has_both_programs(tmp_path: Path) -> None:
    wheel = build_project(REPOSITORY, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        programs = archive.read(name).decode()
    assert "swarm = swarm.cli:main" in programs
    assert "swarm-unitctl = swarm.unitctl:main" in programs


def test_the_oldest_are_removed_with_what_was_packed_from_them(tmp_path: Path) -> None:
    for age in range(wheelhouse.KEPT + 2):
        directory = tmp_path / f"release{age}"
        directory.mkdir()
        (tmp_path / f"release{age}.tar").touch()
        os.utime(directory, (1000 - age, 1000 - age))
    prune(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        name for age in range(wheelhouse.KEPT) for name in (f"release{age}", f"release{age}.tar")
    )


def test_rendered_pin_keeps_every_hash() -> None:
    pin = Pin(Requirement("one[extra]==1.0 ; python_version > '3'"), ("sha256:aa",))
    assert pin.render() == "one==1.0 --hash=sha256:aa\n"

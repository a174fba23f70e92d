"""Files that the lab keeps, its image recipe, and its command line."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from lab import lab, packages
from lab.commands import LabError, run, run_logged
from lab.image import bootstrap_argv, inherited_apt_settings, make_recipe
from lab.state import State, default_directory, write_if_changed
from lab.topology import HOSTS, SUBNET, hosts_file


def test_state_is_outside_the_clone(tmp_path: Path) -> None:
    assert default_directory({"SWARM_LAB_HOME": str(tmp_path)}) == tmp_path
    assert default_directory({}) == Path.home() / ".cache" / "swarm-lab"
    assert default_directory({"SWARM_LAB_HOME": ""}) == default_directory({})


def test_hosts_are_in_the_subnet_and_all_are_named() -> None:
    assert all(host.address in SUBNET for host in HOSTS)
    assert "10.77.0.10 control pages.lab hosted.lab\n" in hosts_file()
    assert "10.77.0.12 worker2\n" in hosts_file()


def test_key_is_made_once_and_kept(tmp_path: Path) -> None:
    state = State(tmp_path / "lab")
    first = state.prepare()
    assert first.startswith("ssh-ed25519 ")
    assert state.prepare() == first
    assert state.directory.stat().st_mode & 0o777 == 0o700
    state.key.unlink()
    assert state.prepare() != first


def test_ssh_reads_what_was_written(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.prepare()
    for name in ("worker2", "10.77.0.12"):
        argv = ["ssh", "-G", "-F", str(state.ssh_config), name]
        settings = dict(line.split(" ", 1) for line in run(argv).splitlines() if " " in line)
        assert settings["hostname"] == "10.77.0.12"
        assert settings["user"] == "root"
        assert settings["stricthostkeychecking"] == "true"
        assert settings["userknownhostsfile"] == str(state.known_hosts)


def test_known_hosts_name_each_host_both_ways(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.write_known_hosts({"control": "ssh-ed25519 AAA", "worker1": "ssh-ed25519 BBB"})
    assert state.known_hosts.read_text().splitlines() == [
        "control,10.77.0.10 ssh-ed25519 AAA",
        "worker1,10.77.0.11 ssh-ed25519 BBB",
    ]


def test_facts_name_the_hosts(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.write_facts({"bridge": "podman7"})
    facts = json.loads(state.facts.read_text())
    assert facts["hosts"]["worker1"] == "10.77.0.11"
    assert facts["bridge"] == "podman7"


def test_an_unchanged_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_if_changed(path, "one")
    before = path.stat().st_ino
    write_if_changed(path, "one")
    assert path.stat().st_ino == before
    write_if_changed(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600


def test_packages_that_one_host_fetched_reach_the_others_as_links(tmp_path: Path) -> None:
    state = State(tmp_path)
    cache = state.package_cache("worker1")
    cache.mkdir(parents=True)
    (cache / "redis_1.deb").write_bytes(b"redis")
    (cache / "lock").touch()
    (cache / "partial").mkdir()
    packages.share(state)
    shared = state.package_cache("control") / "redis_1.deb"
    assert shared.samefile(cache / "redis_1.deb")
    assert [entry.name for entry in state.package_pool.iterdir()] == ["redis_1.deb"]
    cache_control = state.package_cache("control")
    (cache_control / "curl_1.deb").touch()
    assert packages.collect(state) == 1
    assert packages.collect(state) == 0


def test_image_changes_its_name_with_its_recipe() -> None:
    recipe = make_recipe(())
    assert recipe.image == make_recipe(()).image
    assert recipe.image != make_recipe(('Acquire::Check-Date "false";',)).image
    assert recipe.image != replace(recipe, packages=(*recipe.packages, "vim")).image
    assert recipe.image.startswith("localhost/swarm-lab:")


def test_only_settings_that_hosts_need_are_inherited() -> None:
    dump = (
        'Acquire::http "";\nAcquire::http::Proxy "http://proxy:3128";\n'
        'Acquire::http::ProxyAutoDetect "x";\nAcquire::Languages "none";\n'
    )
    assert inherited_apt_settings(dump) == ('Acquire::http::Proxy "http://proxy:3128";',)


def test_image_hooks_write_exactly_the_files(tmp_path: Path) -> None:
    recipe = replace(make_recipe(()), commands=(), files=(("/note", "it's $HOME\n\"'%s\n"),))
    argv = bootstrap_argv(recipe, tmp_path / "image.tar")
    (hook,) = (a.removeprefix("--customize-hook=") for a in argv if "customize-hook" in a)
    subprocess.run(["sh", "-ec", hook, "hook", str(tmp_path)], check=True)
    assert (tmp_path / "note").read_text() == "it's $HOME\n\"'%s\n"
    assert argv[-2:] == ["bookworm", str(tmp_path / "image.tar")]
    assert not any("://" in part for part in argv), "no mirror is named: mmdebstrap knows Debian's"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["sh", "-c", "echo one >&2; echo two >&2; exit 3"], "exited 3: one / two"),
        (["sh", "-c", "exit 4"], "it said nothing"),
        (["/nonexistent/program"], "cannot run /nonexistent/program: No such file"),
        (["sleep", "5"], "no end after 0 s: sleep 5"),
    ],
)
def test_a_failed_command_says_what_failed(argv: list[str], expected: str) -> None:
    with pytest.raises(LabError, match=expected):
        run(argv, timeout_s=0.3)


def test_a_long_command_points_to_its_log(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with pytest.raises(LabError, match=f"exited 1, see {log}"):
        run_logged(["sh", "-c", "echo why; exit 1"], log, timeout_s=5)
    assert log.read_text() == "why\n"


def test_missing_requirements_are_one_line_and_exit_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWARM_LAB_HOME", str(tmp_path / "lab"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert lab.main(["up"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("lab: ")
    assert "podman" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "lab").exists()


def test_ssh_config_needs_no_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SWARM_LAB_HOME", str(tmp_path))
    assert lab.main(["ssh-config"]) == 0
    assert f"IdentityFile {tmp_path}/id_ed25519" in capsys.readouterr().out

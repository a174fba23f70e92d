"""The program behind the forced command: its verbs, and everything else is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm import unit_entry, unitctl, witness
from swarm.status import DrainStatus, InstanceStatus
from swarm.unitctl import Command, RefusedError, SystemctlError, parse_command, parse_show
from tests.builders import make_cgroups, make_status
from tests.stub_systemctl import StubSystemctl, show

UNIT = "celery-browser@3.service"


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubSystemctl:
    stub = StubSystemctl(tmp_path)
    monkeypatch.setenv("PATH", stub.environ["PATH"])
    return stub


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["list"], Command("list")),
        (["watch"], Command("watch")),
        (["start", "browser", "1"], Command("start", "browser", 1)),
        (["stop", "a-b9", "99", "812", "4"], Command("stop", "a-b9", 99, 812, 4)),
        (["cancel", "0a-b_c.d:9"], Command("cancel", task_id="0a-b_c.d:9")),
        (["drain", "browser", "3"], Command("drain", "browser", 3)),
        (["undrain", "browser", "3"], Command("undrain", "browser", 3)),
    ],
)
def test_the_verbs_are_taken(words: list[str], command: Command) -> None:
    assert parse_command(words) == command


def test_the_unit_is_named_by_pool_and_number() -> None:
    assert Command("start", "browser", 3).unit == UNIT


@pytest.mark.parametrize(
    "words",
    [
        [],
        [""],
        ["List"],
        ["list", "all"],
        ["list", ""],
        ["restart", "browser", "1"],
        ["cancel"],
        ["cancel", ""],
        ["cancel", "a", "b"],
        ["cancel", "-a"],
        ["cancel", "../a"],
        ["cancel", "a\n"],
        ["cancel", "$(id)"],
        ["cancel", "a" * 201],
        ["start"],
        ["start", "browser"],
        ["start", "browser", "1", "2"],
        ["start", "browser", "0"],
        ["start", "browser", "01"],
        ["start", "browser", "100"],
        ["start", "browser", "-1"],
        ["start", "browser", "1\n"],
        ["start", "browser", "\u0661"],
        ["start", "browser", "*"],
        ["start", "", "1"],
        ["start", "Browser", "1"],
        ["start", "browser@1", "1"],
        ["start", "browser.service", "1"],
        ["start", "browser\n", "1"],
        ["start", "-browser", "1"],
        ["start", "../browser", "1"],
        ["start", "$(id)", "1"],
        ["start", "b" * 33, "1"],
        ["stop", "browser", "1"],
        ["stop", "browser", "1", "812"],
        ["stop", "browser", "1", "812", "0"],
        ["stop", "browser", "1", "-1", "4"],
        ["stop", "browser", "1", "812", "4\n"],
        ["stop", "browser", "1", "812", "4", "5"],
        ["stop", "browser", "1", "812", "9" * 19],
        ["stop", "--all", "1", "812", "4"],
        ["drain", "browser"],
        ["drain", "browser", "1", "60"],
        ["drain", "../browser", "1"],
        ["undrain", "browser", "0"],
        ["state", "browser", "1"],
        ["stop", "browser;reboot", "1", "812", "4"],
        ["sh", "-c", "id"],
        ["--help"],
    ],
)
def test_anything_else_is_refused(words: list[str]) -> None:
    with pytest.raises(RefusedError, match=r"expected: list \| watch \| start POOL N"):
        parse_command(words)


@given(
    st.lists(st.text(max_size=12), max_size=6)
    | st.tuples(st.just("start"), st.text(), st.text())
    | st.tuples(st.just("stop"), st.text(), st.text(), st.just("812"), st.text())
)
def test_what_is_taken_can_only_name_an_instance(words: Sequence[str]) -> None:
    try:
        command = parse_command(words)
    except RefusedError as exc:
        refusal = str(exc)
    else:
        assert command.verb in {"list", "watch"} or unit_entry.instance_of(command.unit)
        return
    assert len(refusal) < 2000
    assert len(refusal.splitlines()) == 1


def test_blocks_of_systemctl_become_instances() -> None:
    output = "\n".join(
        [
            show(UNIT, main_pid=812, changed_ago_s=5),
            show(
                "celery-analysis@1.service",
                active_state="failed",
                result="exit-code",
                main_pid=0,
                exit_status=2,
            ),
            show("celery-browser@12.service", active_state="activating", sub_state="auto-restart"),
        ]
    )
    first, second, third = parse_show(output)
    assert (first["pool"], first["number"], first["main_pid"]) == ("browser", 3, 812)
    assert first["active_state"] == "active"
    assert second["active_state"] == "failed"
    assert (second["result"], second["exit_status"]) == ("exit-code", 2)
    assert (third["number"], third["sub_state"]) == (12, "auto-restart")


@pytest.mark.parametrize(
    "output",
    [
        "",
        "\n",
        "Id=\nActiveState=inactive\n",
        show("celery-browser@0.service"),
        show("celery-browser@100.service"),
        show("celery-browser@x.service"),
        show("celery-browser@1.socket"),
        show("celery-Browser@1.service"),
        show("ssh.service"),
        "no properties at all",
    ],
)
def test_what_is_no_instance_is_passed_over(output: str) -> None:
    assert parse_show(output) == []


def test_numbers_that_systemd_does_not_know_are_zero() -> None:
    [instance] = parse_show(f"Id={UNIT}\nMainPID=[not set]\nStateChangeTimestampMonotonic=\n")
    assert (instance["main_pid"], instance["state_changed_at"]) == (0, 0)


def test_a_value_may_hold_an_equals_sign() -> None:
    [instance] = parse_show(f"Id={UNIT}\nSubState=a=b\n")
    assert instance["sub_state"] == "a=b"


def listed(directory: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(unitctl.run(Command("list"), directory))
    return document


def test_list_joins_units_and_their_own_word(systemctl: StubSystemctl, tmp_path: Path) -> None:
    status = make_status(number=3, pid=812)
    status.write(tmp_path)
    systemctl.add(UNIT, main_pid=812)
    systemctl.add("celery-browser@4.service", main_pid=813)
    document = listed(tmp_path)
    assert document["version"] == unit_entry.PROTOCOL_VERSION
    assert document["now"] > 0
    assert document["memory_available_mb"] > 0
    third, fourth = document["instances"]
    assert InstanceStatus.from_mapping(third["status"]) == status
    assert fourth["status"] is None
    [call] = systemctl.calls
    assert call.startswith("--no-ask-password show celery-*@*.service --property Id,")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '"x"',
        "\xff\xfe",
        "[" * 1_000_000,
        json.dumps(asdict(make_status(number=3, pid=1))),
        " " * 1_000_000 + json.dumps(asdict(make_status(number=3, pid=812))),
    ],
    ids=["empty", "half", "list", "text", "binary", "deep", "of an earlier process", "long"],
)
def test_a_word_that_is_not_this_process_is_no_word(
    systemctl: StubSystemctl, tmp_path: Path, content: str
) -> None:
    (tmp_path / "browser-3.json").write_bytes(content.encode("latin-1"))
    systemctl.add(UNIT, main_pid=812)
    [instance] = listed(tmp_path)["instances"]
    assert instance["status"] is None


def test_of_a_drained_instance_the_list_tells_what_its_cgroup_holds(
    systemctl: StubSystemctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witness, "ROOTS", (make_cgroups(tmp_path, "/swarm.slice/x", os.getpid()),))
    drain = DrainStatus("idle", sequence=3, since=90.0)
    for number, status in ((3, {"drain": drain}), (4, {}), (5, {"drain": drain})):
        make_status(number=number, pid=os.getpid(), **status).write(tmp_path)
        group = "/swarm.slice/x" if number < 5 else "/swarm.slice/gone"
        systemctl.add(f"celery-browser@{number}.service", main_pid=os.getpid(), control_group=group)
    third, fourth, fifth = listed(tmp_path)["instances"]
    assert third["status"]["drain"] == asdict(drain)
    assert (third["witness"]["processes"], third["witness"]["renderers"]) == (1, 0)
    assert third["witness"]["cpu_s"] > 0
    assert "witness" not in fourth, "nobody asks of those that consume"
    assert fifth["witness"] is None


def test_without_instances_the_list_is_empty(systemctl: StubSystemctl, tmp_path: Path) -> None:
    assert listed(tmp_path)["instances"] == []


def test_a_start_does_not_wait(systemctl: StubSystemctl) -> None:
    assert json.loads(unitctl.run(Command("start", "browser", 3))) == {"version": 1, "ok": True}
    assert f"--no-ask-password start --no-block {UNIT}" in systemctl.calls
    assert not any("reset-failed" in call for call in systemctl.calls)


def test_a_failed_unit_is_reset_before_it_is_started(systemctl: StubSystemctl) -> None:
    systemctl.add(UNIT, active_state="failed")
    unitctl.run(Command("start", "browser", 3))
    assert f"--no-ask-password reset-failed {UNIT}" in systemctl.calls


def test_what_systemctl_says_is_passed_on(systemctl: StubSystemctl, tmp_path: Path) -> None:
    systemctl.fail("Failed to list units: Access denied")
    with pytest.raises(SystemctlError, match="Access denied"):
        unitctl.run(Command("list"), tmp_path)


def test_a_systemctl_that_hangs_is_given_up(
    systemctl: StubSystemctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unitctl, "_SYSTEMCTL_TIMEOUT_S", 0.2)
    systemctl.hang()
    with pytest.raises(SystemctlError, match=r"did not answer in 0\.2 s"):
        unitctl.run(Command("list"), tmp_path)


def test_without_systemctl_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemctlError, match="systemctl is not installed"):
        unitctl.run(Command("list"), tmp_path)


def test_the_clients_words_come_before_the_arguments(
    systemctl: StubSystemctl, capsys: pytest.CaptureFixture[str]
) -> None:
    assert unitctl.main(["start", "browser", "1"], {"SSH_ORIGINAL_COMMAND": "start browser 2"}) == 0
    assert "start --no-block celery-browser@2.service" in systemctl.calls[-1]
    assert unitctl.main([], {"SSH_ORIGINAL_COMMAND": "swarm-unitctl start browser 4"}) == 0
    assert "start --no-block celery-browser@4.service" in systemctl.calls[-1]
    capsys.readouterr()


@pytest.mark.parametrize("command", ["", "sh", "list; id", "start browser $(id)", "swarm-unitctl"])
def test_a_refusal_is_one_line_and_exit_2(
    systemctl: StubSystemctl, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert unitctl.main(["list"], {"SSH_ORIGINAL_COMMAND": command}) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert output.err.startswith("swarm-unitctl: refused: ")
    assert systemctl.calls == []


def test_a_failure_is_exit_1(systemctl: StubSystemctl, capsys: pytest.CaptureFixture[str]) -> None:
    systemctl.fail("Interactive authentication required.")
    assert unitctl.main(["start", "browser", "1"], {}) == 1
    assert capsys.readouterr().err == "swarm-unitctl: Interactive authentication required.\n"


def test_it_needs_nothing_but_the_standard_library(systemctl: StubSystemctl) -> None:
    """It is started for every command, and must start when the rest of the venv is broken."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "swarm.unitctl", "list"],
        capture_output=True,
        text=True,
        check=False,
        env={**systemctl.environ, "PYTHONPATH": str(Path(unitctl.__file__).parents[1])},
    )
    assert done.stderr == ""
    assert json.loads(done.stdout)["instances"] == []

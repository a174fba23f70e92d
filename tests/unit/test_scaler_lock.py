"""One scaler at a time, whatever became of the one before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.errors import AlreadyRunningError, ConfigError
from swarm.scaler.adapters.lock import hold_lock

_HOLDER = """
import sys, time
from pathlib import Path
from swarm.scaler.adapters.lock import hold_lock
with hold_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_one_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "scaler.lock"
    with hold_lock(path):
        told = rf"process {os.getpid()} on .+, since 20"
        with pytest.raises(AlreadyRunningError, match=told), hold_lock(path):
            pass
        # Nor did the attempt take it away.
        with pytest.raises(AlreadyRunningError), hold_lock(path):
            pass
    with hold_lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_holder_that_is_killed_leaves_it_free(tmp_path: Path) -> None:
    path = tmp_path / "scaler.lock"
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(AlreadyRunningError, match=f"process {holder.pid} "), hold_lock(path):
            pass
        holder.kill()
        holder.wait()
        with hold_lock(path):
            pass


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"since": 1e300}', "\0" * 9000])
def test_a_file_that_does_not_say_who_is_a_lock_all_the_same(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scaler.lock"
    with hold_lock(path):
        path.write_text(text)
        with pytest.raises(AlreadyRunningError, match="does not say who"), hold_lock(path):
            pass


def test_a_full_disk_costs_the_word_not_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    path = tmp_path / "scaler.lock"
    path.write_text('{"pid": 1, "host": "h", "since": 1}')
    monkeypatch.setattr(os, "pwrite", full)
    with hold_lock(path):
        assert "No space left" in caplog.text
        # Not that of an earlier holder.
        with pytest.raises(AlreadyRunningError, match="does not say who"), hold_lock(path):
            pass


def test_a_disk_that_is_read_only_is_locked_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scaler.lock"
    path.touch()
    really_open = os.open

    def read_only(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_RDWR:
            raise OSError(30, "Read-only file system")
        return really_open(path, flags, mode)

    monkeypatch.setattr(os, "open", read_only)
    with hold_lock(path), pytest.raises(AlreadyRunningError), hold_lock(path):
        pass


def test_without_its_directory_is_a_wrong_configuration(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "scaler.lock"
    told = r"scaler.data_directory: got .*absent \(No such file"
    with pytest.raises(ConfigError, match=told), hold_lock(path):
        pass

"""`swarm artifact get`: the file is whole or not there, and nothing is replaced unasked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.browse.directory_store import DirectoryStore

CONFIG = """
pools: {{browser: {{task_type: browser, queues: [browser], metrics_port_base: 9100}}}}
browser: {{artifacts_directory: {directory}/store{more}}}
"""
ABSENT = "0" * 32
PNG = b"\x89PNG"


@pytest.fixture
def artifact_id(tmp_path: Path) -> str:
    (tmp_path / "here").mkdir()
    (tmp_path / "store").mkdir()
    configure(tmp_path)
    store = DirectoryStore(tmp_path / "store", host="h")
    return asyncio.run(store.put(PNG, kind="screenshot", mime="image/png")).id


def configure(tmp_path: Path, more: str = "") -> None:
    text = CONFIG.format(directory=tmp_path, more=more)
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")


def get(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    environ = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "SWARM_CONFIG": str(tmp_path / "config.yaml"),
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    program = "from swarm.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "artifact", "get", *words],
        env=environ,
        cwd=tmp_path / "here",
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    return done


def files(tmp_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}


def test_it_is_written_under_its_own_name(tmp_path: Path, artifact_id: str) -> None:
    done = get(tmp_path, artifact_id)
    assert (done.returncode, done.stdout) == (0, f"{artifact_id}.png\n".encode())
    assert files(tmp_path) == {f"{artifact_id}.png": PNG}


def test_it_is_written_where_one_says(tmp_path: Path, artifact_id: str) -> None:
    assert get(tmp_path, artifact_id, "-o", "shot.png").stdout == b"shot.png\n"
    assert files(tmp_path) == {"shot.png": PNG}
    assert get(tmp_path, artifact_id, "-o", "-").stdout == PNG


@pytest.mark.parametrize("words", [(), ("-o", "shot.png")])
def test_a_file_that_is_there_is_replaced_only_when_told(
    tmp_path: Path, artifact_id: str, words: tuple[str, ...]
) -> None:
    name = words[-1] if words else f"{artifact_id}.png"
    (tmp_path / "here" / name).write_bytes(b"mine")
    done = get(tmp_path, artifact_id, *words)
    assert done.returncode == 2
    assert b"--force" in done.stderr
    assert files(tmp_path) == {name: b"mine"}
    assert get(tmp_path, artifact_id, *words, "--force").returncode == 0
    assert files(tmp_path) == {name: PNG}


def test_what_is_not_there_is_exit_1_and_leaves_nothing(tmp_path: Path, artifact_id: str) -> None:
    done = get(tmp_path, ABSENT)
    assert done.returncode == 1
    assert f"no artifact {ABSENT}".encode() in done.stderr
    assert files(tmp_path) == {}


@pytest.mark.parametrize("wrong", ["x", "../store", "0" * 31, ""])
def test_what_is_no_id_is_exit_2(tmp_path: Path, artifact_id: str, wrong: str) -> None:
    done = get(tmp_path, wrong)
    assert done.returncode == 2
    assert b"32 hexadecimal digits" in done.stderr


def test_a_place_that_is_not_there_is_exit_2(tmp_path: Path, artifact_id: str) -> None:
    done = get(tmp_path, artifact_id, "-o", "absent/shot.png")
    assert done.returncode == 2
    assert b"No such file" in done.stderr


def test_without_the_token_it_is_exit_2(tmp_path: Path, artifact_id: str) -> None:
    configure(tmp_path, ", artifacts_url: http://127.0.0.1:1")
    done = get(tmp_path, artifact_id)
    assert done.returncode == 2
    assert b"artifacts-read: got nothing, expected USER:TOKEN" in done.stderr


def test_a_store_that_is_away_is_exit_3_and_leaves_nothing(
    tmp_path: Path, artifact_id: str
) -> None:
    configure(tmp_path, ", artifacts_url: http://127.0.0.1:1")
    (tmp_path / "artifacts-read").write_text("reader:s3cret-token\n", encoding="utf-8")
    done = get(tmp_path, artifact_id)
    assert done.returncode == 3
    assert b"http://127.0.0.1:1" in done.stderr
    assert b"s3cret" not in done.stderr
    assert files(tmp_path) == {}

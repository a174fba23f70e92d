"""The script that proves a copy of Redis' data before a backup keeps it or a restore uses it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.loopback import REDIS
from tests.programs import need
from tests.role_redis import ROLE, RoleRedis


@pytest.fixture
def path(tmp_path: Path) -> str:
    """redis-server, which this machine has under another name only."""
    need(REDIS, "redis-tools")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "redis-server").symlink_to(REDIS)
    return f"{programs}:{os.environ['PATH']}"


@pytest.fixture
def copy(tmp_path: Path, role_redis: RoleRedis) -> Path:
    """Three keys, of which one expires."""
    with role_redis.connect("admin") as admin:
        admin.flushall()
        admin.rpush("browser", "m1", "m2")
        admin.hset("swarm:dead", "t", "{}")
        admin.set("swarm:done:i", "1", ex=3600)
    shutil.copytree(role_redis.directory / "data" / "appendonlydir", tmp_path / "appendonlydir")
    with role_redis.connect("admin") as admin:
        admin.flushall()
    return tmp_path


def load(copy: Path, path: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(ROLE / "files" / "load-copy.sh"), str(copy), *words],
        env={"PATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_good_copy_is_counted(copy: Path, path: str) -> None:
    done = load(copy, path)
    assert done.returncode == 0, done.stderr
    counted = json.loads(done.stdout)
    assert (counted["keys"], counted["lasting"]) == (3, 2)
    assert not (copy / "socket").exists()


def test_a_copy_that_ends_in_half_a_command_is_cut_to_whole_ones(copy: Path, path: str) -> None:
    (last,) = (copy / "appendonlydir").glob("*.incr.aof")
    whole = last.stat().st_size
    with last.open("ab") as file:
        file.write(b"*3\r\n$5\r\nRPUSH\r\n$7\r\nbrow")
    done = load(copy, path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["keys"] == 3
    assert last.stat().st_size == whole


def test_a_rewritten_copy_has_everything_in_its_base_file(copy: Path, path: str) -> None:
    rewritten = load(copy, path, "rewrite")
    assert rewritten.returncode == 0, rewritten.stderr
    (end,) = (copy / "appendonlydir").glob("*.incr.aof")
    assert end.stat().st_size == 0
    done = load(copy, path)
    assert json.loads(done.stdout) == {"keys": 3, "lasting": 2, "base": 3}


@pytest.mark.parametrize("harm", ["garbled", "missing"])
def test_a_copy_that_cannot_be_loaded_says_why(copy: Path, path: str, harm: str) -> None:
    (last,) = (copy / "appendonlydir").glob("*.incr.aof")
    if harm == "missing":
        last.unlink()
    else:
        last.write_bytes(b"garbage" + last.read_bytes())
    done = load(copy, path)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "AOF" in done.stderr or "append only" in done.stderr

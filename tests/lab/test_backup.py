"""What `make backup` takes and `make restore` brings back, on the deployed lab."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.commands import run
from lab.hosts import REPOSITORY
from tests.lab.conftest import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

#: No service knows it, so nobody takes from it while the test looks.
LETTERS = "backup-test"


def redis(lab: Lab, command: str) -> str:
    """One command as the admin, whose password goes by stdin."""
    password = (lab.state.directory / "passwords" / "redis-admin").read_text("utf-8").strip()
    ssh = ["ssh", "-F", str(lab.state.ssh_config), "control", "redis-cli"]
    accepted, _, said = run(ssh, stdin=f"AUTH admin {password}\n{command}\n").partition("\n")
    assert accepted == "OK"
    return said.strip()


def play(name: str, **variables: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("ansible-playbook")
    words = [str(program), "-i", "inventories/lab", f"playbooks/{name}.yml"]
    for variable, value in variables.items():
        words += ["-e", f"{variable}={value}"]
    return subprocess.run(
        words, cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture
def clean(lab: Lab) -> Iterator[None]:
    yield
    redis(lab, f"DEL {LETTERS}")
    lab.on("control", "rm -rf /var/lib/redis/replaced-*")


def test_a_backup_brings_back_what_was_lost_and_the_swarm_goes_on(
    lab: Lab, clean: None, tmp_path: Path
) -> None:
    # As a script does it: two changes are a transaction in the append-only file.
    push = "redis.call('RPUSH', KEYS[1], 'one') redis.call('RPUSH', KEYS[1], 'two', 'three')"
    redis(lab, f'EVAL "{push}" 1 {LETTERS}')
    taken = play("backup", redis_backup_directory=tmp_path)
    assert taken.returncode == 0, taken.stdout
    (archive,) = tmp_path.glob("redis-control-*.tar.gz")
    assert "100" in redis(lab, "CONFIG GET auto-aof-rewrite-percentage")

    redis(lab, f"DEL {LETTERS}")
    show_pid = "systemctl show -P MainPID redis-server.service"
    running = lab.on("control", show_pid)

    unasked = play("restore", redis_backup_file=archive)
    assert unasked.returncode != 0
    assert "Redis holds db0:keys=" in unasked.stdout

    spoilt = tmp_path / "spoilt.tar.gz"
    spoilt.write_bytes(archive.read_bytes()[:-1])
    spoilt.with_name("spoilt.json").write_bytes(
        archive.with_name(archive.name.replace(".tar.gz", ".json")).read_bytes()
    )
    refused = play("restore", redis_backup_file=spoilt, redis_restore_replace="true")
    assert refused.returncode != 0
    assert "unchanged" in refused.stdout

    # Neither touched the Redis that runs.
    assert lab.on("control", show_pid) == running
    assert redis(lab, f"EXISTS {LETTERS}") == "0"

    restored = play("restore", redis_backup_file=archive, redis_restore_replace="true")
    assert restored.returncode == 0, restored.stdout
    assert redis(lab, f"LRANGE {LETTERS} 0 -1").split() == ["one", "two", "three"]
    assert lab.on("control", "ls -d /var/lib/redis/replaced-*")

    # Everyone has come back to it by himself.
    results = lab.results(lab.submit_pages(2), timeout_s=60)
    assert [result.state for result in results] == ["done", "done"]

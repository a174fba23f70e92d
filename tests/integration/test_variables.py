"""`playbooks/validate.yml` names every wrong variable, and where a renamed one has gone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def validate(tmp_path: Path, **variables: str) -> tuple[int, str]:
    program = Path(sys.executable).with_name("ansible-playbook")
    words = [str(program), "-i", "inventories/local", "playbooks/validate.yml"]
    for name, value in variables.items():
        words += ["-e", f"{name}={value}"]
    done = subprocess.run(
        words,
        cwd=REPOSITORY,
        env={**os.environ, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Ansible folds long lines.
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def test_the_example_for_this_machine_is_right(tmp_path: Path) -> None:
    status, said = validate(tmp_path)
    assert status == 0, said


def test_a_renamed_variable_is_told_with_its_new_name(tmp_path: Path) -> None:
    status, said = validate(tmp_path, swarm_redis_password="x" * 20, redis_maxmemory="1gb")
    assert status != 0
    assert "swarm_redis_password -> swarm_redis_passwords" in said
    assert "redis_maxmemory -> redis_memory" in said


def test_wrong_values_for_redis_are_named_together(tmp_path: Path) -> None:
    status, said = validate(tmp_path, redis_memory="80%", redis_port="0")
    assert status != 0
    assert "redis_memory is 80%, expected a number with a unit" in said
    assert "redis_port is 0, expected a port" in said
    status, said = validate(tmp_path, redis_appendfsync="sometimes")
    assert status != 0
    assert "must be one of: always, everysec" in said

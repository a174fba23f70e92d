"""`playbooks/validate.yml` names every wrong variable, and where a renamed one has gone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]


HOSTED = "rediss://default:hosted-secret@hosted.example.net:6379"
POOLS = {
    "browser": {
        "task_type": "browser",
        "queues": ["browser", "slow"],
        "min_instances": 1,
        "max_instances": 6,
        "spare": 1,
        "blind_instances": 2,
        "schedules": [{"start": "0 8 * * 1-5", "duration": "10h", "min_instances": 3}],
        "metrics_port_base": 9100,
    },
    "analysis": {"task_type": "analysis", "queues": ["analysis"], "metrics_port_base": 9200},
}


def validate(tmp_path: Path, **variables: Any) -> tuple[int, str]:
    program = Path(sys.executable).with_name("ansible-playbook")
    words = [str(program), "-i", "inventories/local", "playbooks/validate.yml"]
    return play(words, tmp_path, variables)


def play(words: list[str], home: Path, variables: dict[str, Any]) -> tuple[int, str]:
    done = subprocess.run(
        [*words, "-e", json.dumps(variables)],
        cwd=REPOSITORY,
        env={**os.environ, "HOME": str(home), "LC_ALL": "C.UTF-8", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Ansible folds long lines.
    return done.returncode, re.sub(r"\s+", " ", done.stdout + done.stderr)


def work_out(tmp_path: Path, **variables: Any) -> dict[str, Any]:
    """What the role `brokers` makes of an inventory."""
    names = ("names", "own", "pools", "origins", "queues")
    facts = "{{ {" + ", ".join(f"'{name}': brokers_{name}" for name in names) + "} | to_json }}"
    copy = {"content": facts, "dest": str(tmp_path / "facts"), "mode": "0600"}
    tasks = [
        {"ansible.builtin.import_role": {"name": "brokers", "tasks_from": name}}
        for name in ("main", "assert")
    ]
    document = {"hosts": "localhost", "tasks": [*tasks, {"ansible.builtin.copy": copy}]}
    playbook = tmp_path / "playbook.yml"
    playbook.write_text(json.dumps([document]), encoding="utf-8")
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    words = [program, "-i", "localhost,", "-c", "local", str(playbook)]
    status, said = play(words, tmp_path, {"swarm_pools": POOLS} | variables)
    assert status == 0, said
    facts = json.loads((tmp_path / "facts").read_text(encoding="utf-8"))
    assert isinstance(facts, dict)
    return facts


def deployed(tmp_path: Path, **variables: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """config.yaml for a controller that is a worker too, and one more; their metrics' addresses."""
    roles = REPOSITORY / "roles"
    hosts = {
        name: {"swarm_address": address, "ansible_connection": "local"}
        for name, address in (("both", "10.77.0.10"), ("far", "10.77.0.11"))
    }
    groups: dict[str, Any] = {
        "controllers": {"hosts": {"both": {}}},
        "workers": {"hosts": {name: {} for name in hosts}},
    }
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(
        json.dumps({"all": {"hosts": hosts, "children": groups}}), encoding="utf-8"
    )
    files = [
        str(roles / name)
        for name in ("release/defaults/main.yml", "release/vars/main.yml", "brokers/vars/main.yml")
    ]
    address = {
        "content": "{{ worker_metrics_address }}",
        "dest": f"{tmp_path}/{{{{ inventory_hostname }}}}",
    }
    config = {"src": str(roles / "release/templates/config.yaml.j2"), "dest": f"{tmp_path}/config"}
    document = {
        "hosts": "all",
        "gather_facts": False,
        "vars": {"brokers_hosted_url": ""},
        "vars_files": [*files, str(roles / "worker/defaults/main.yml")],
        "tasks": [
            {"ansible.builtin.copy": {**address, "mode": "0600"}},
            {"ansible.builtin.template": {**config, "mode": "0600"}, "run_once": True},
        ],
    }
    playbook = tmp_path / "playbook.yml"
    playbook.write_text(json.dumps([document]), encoding="utf-8")
    program = str(Path(sys.executable).with_name("ansible-playbook"))
    words = [program, "-i", str(inventory), str(playbook)]
    status, said = play(words, tmp_path, {"swarm_pools": POOLS} | variables)
    assert status == 0, said
    settings = yaml.safe_load((tmp_path / "config").read_text(encoding="utf-8"))
    assert isinstance(settings, dict)
    return settings, {name: (tmp_path / name).read_text(encoding="utf-8") for name in hosts}


def test_metrics_are_served_where_the_scaler_says_that_they_are(tmp_path: Path) -> None:
    settings, addresses = deployed(tmp_path)
    assert addresses == {"both": "127.0.0.1", "far": "10.77.0.11"}
    assert settings["hosts"]["both"]["address"] == "local", "of which Prometheus is told 127.0.0.1"
    assert settings["hosts"]["far"]["address"] == "10.77.0.11"


def test_a_section_of_config_yaml_is_there_when_it_is_set(tmp_path: Path) -> None:
    worker = {"pause_above_memory": 0.8}
    settings, _ = deployed(tmp_path, release_worker=worker)
    assert settings["worker"] == worker
    settings, _ = deployed(tmp_path)
    assert "worker" not in settings


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


def test_without_a_hosted_redis_there_is_one_broker(tmp_path: Path) -> None:
    assert work_out(tmp_path) == {
        "names": ["primary"],
        "own": "primary",
        "pools": POOLS,
        "origins": {},
        "queues": {"primary": ["browser", "slow", "analysis"], "fallback": []},
    }


def test_with_a_hosted_redis_each_pool_gets_a_copy_on_the_fallback(tmp_path: Path) -> None:
    facts = work_out(tmp_path, swarm_hosted_redis_url=HOSTED)
    assert facts["names"] == ["primary", "fallback"]
    assert facts["own"] == "fallback"
    assert list(facts["pools"]) == ["browser", "analysis", "browser-fallback", "analysis-fallback"]
    changed = {
        "broker": "fallback",
        "min_instances": 0,
        "spare": 0,
        "blind_instances": 0,
        "schedules": [],
    }
    for name, base in (("browser", 9600), ("analysis", 9700)):
        assert facts["pools"][name] == POOLS[name]
        copy = facts["pools"][f"{name}-fallback"]
        assert copy == POOLS[name] | changed | {"metrics_port_base": base}
    assert facts["origins"] == {"browser-fallback": "browser", "analysis-fallback": "analysis"}
    assert set(facts["queues"]["fallback"]) == set(facts["queues"]["primary"])


def test_pools_of_the_operators_own_are_left_as_they_are(tmp_path: Path) -> None:
    own = {"broker": "fallback", "queues": ["all"], "metrics_port_base": 9300}
    pools = POOLS | {"spare-wheel": POOLS["browser"] | own}
    facts = work_out(tmp_path, swarm_hosted_redis_url=HOSTED, swarm_pools=pools)
    assert facts["pools"] == pools
    assert facts["queues"] == {"primary": ["browser", "slow", "analysis"], "fallback": ["all"]}


def test_the_example_is_right_with_a_hosted_redis(tmp_path: Path) -> None:
    status, said = validate(tmp_path, swarm_hosted_redis_url=HOSTED)
    assert status == 0, said


def test_the_url_for_everyone_has_a_new_name(tmp_path: Path) -> None:
    status, said = validate(tmp_path, release_redis_url=HOSTED)
    assert status != 0
    assert "release_redis_url -> swarm_hosted_redis_url" in said


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (
            {"swarm_hosted_redis_url": "rediss://:hosted-secret@a@h"},
            ["brokers_hosted_url (swarm_hosted_redis_url) is not as expected", "(%40 for @)"],
        ),
        (
            {
                "swarm_hosted_redis_urls": {"worker": HOSTED},
                "swarm_pools": {"browser": POOLS["browser"] | {"broker": "fallback"}},
            },
            [
                "(swarm_hosted_redis_urls) is set, expected brokers_hosted_url",
                "has broker fallback in browser, expected swarm_hosted_redis_url too",
            ],
        ),
        (
            {
                "swarm_hosted_redis_url": HOSTED.replace("rediss:", "redis:"),
                "swarm_hosted_redis_urls": {"boss": "https://:hosted-secret@h"},
                "swarm_hosted_redis_ca": __file__,
                "swarm_pools": POOLS
                | {"analysis": POOLS["analysis"] | {"metrics_port_base": 9550}},
            },
            [
                "expected rediss:// in every URL",
                "(swarm_hosted_redis_urls) has a value that is not as expected",
                "names boss, expected only producer, worker, flower, scaler",
                "browser-fallback (9600, analysis has 9550)",
            ],
        ),
        (
            {
                "swarm_hosted_redis_url": HOSTED,
                "swarm_hosted_redis_ca": "/absent.pem",
                "swarm_pools": {
                    "a": POOLS["browser"],
                    "a-fallback": POOLS["analysis"],
                    "b" * 24: POOLS["browser"] | {"metrics_port_base": 65000},
                },
            },
            [
                "is /absent.pem, expected a PEM file on the machine that runs Ansible",
                "swarm_pools has a-fallback with broker primary, expected other names",
                f"names {'b' * 24}, expected 23 characters or fewer",
                f"leaves no ports for the metrics of {'b' * 24}-fallback (65500)",
            ],
        ),
    ],
)
def test_all_that_is_wrong_with_brokers_is_said(
    tmp_path: Path, variables: dict[str, Any], expected: list[str]
) -> None:
    status, said = validate(tmp_path, **variables)
    assert status != 0
    assert [text for text in expected if text not in said] == []
    assert "hosted-secret" not in said

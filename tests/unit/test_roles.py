"""Every role says the same in its defaults, its argument specs and its README."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


def read(role: str, name: str) -> Any:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text(encoding="utf-8"))


def options(role: str) -> dict[str, dict[str, Any]]:
    specs: dict[str, Any] = read(role, "meta/argument_specs.yml")["argument_specs"]
    return dict(specs["main"]["options"])


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role: str) -> None:
    specified = {n: o["default"] for n, o in options(role).items() if not o.get("required")}
    assert read(role, "defaults/main.yml") == specified


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_has_the_role_s_name_and_a_description(role: str) -> None:
    for name, option in options(role).items():
        assert name.startswith(f"{role}_")
        assert option["description"]


@pytest.mark.parametrize("role", ROLES)
def test_readme_lists_each_variable_with_its_default(role: str) -> None:
    text = (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+)` \| \w+ \| (.*?) \| ", text, re.MULTILINE))
    assert listed == {name: render(option) for name, option in options(role).items()}


def render(option: dict[str, Any]) -> str:
    if option.get("required"):
        return "required"
    default = option["default"]
    shown = default.strip() if isinstance(default, str) else json.dumps(default)
    return "`" + shown.replace("|", r"\|") + "`" if shown else "empty"


@pytest.mark.parametrize("role", ROLES)
def test_main_stays_readable(role: str) -> None:
    lines = (ROOT / "roles" / role / "tasks" / "main.yml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40


@pytest.mark.parametrize("role", ROLES)
def test_every_entry_point_is_specified(role: str) -> None:
    specified = set(read(role, "meta/argument_specs.yml")["argument_specs"])
    for name in ("assert", "verify", "uninstall", "key", "host", "verify_host"):
        if (ROOT / "roles" / role / "tasks" / f"{name}.yml").exists():
            assert name in specified


def test_templates_are_validated_where_they_are_rendered() -> None:
    """A file that a host would choke on must not replace one that works."""
    for path in (ROOT / "roles").glob("*/tasks/*.yml"):
        tasks = yaml.safe_load(path.read_text(encoding="utf-8"))
        for task in flatten(tasks):
            if "ansible.builtin.template" in task:
                assert "validate" in task["ansible.builtin.template"], f"{path}: {task['name']}"


def test_whoever_has_something_to_tell_redis_stops_before_it() -> None:
    """On one host; systemd stops units in the opposite of the order in which it starts them."""
    for name in ("celery-worker@.service.j2", "flower@.service.j2"):
        text = (ROOT / "systemd" / name).read_text(encoding="utf-8")
        after = " ".join(re.findall(r"^After=(.*)$", text, re.MULTILINE))
        assert "redis-server.service" in after.split(), name
        assert not re.search(r"^(Wants|Requires)=.*redis-server", text, re.MULTILINE), name


def flatten(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [inner for task in tasks for inner in (task, *flatten(task.get("block", [])))]

"""Documents that are made from the code, and nothing left open in the others."""

from __future__ import annotations

import importlib.util
import re
from collections import defaultdict
from pathlib import Path

import pytest
import yaml

import swarm.delivery.keys
from swarm.config import load_settings

REPOSITORY = Path(__file__).parents[2]
PAGES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]


def test_the_reference_of_config_yaml_is_what_the_settings_say() -> None:
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert generate.PAGE.read_text(encoding="utf-8") == generate.render(), "run `make docs`"


def test_the_example_configuration_is_right() -> None:
    assert set(load_settings(REPOSITORY / "config" / "config.example.yaml").pools) == {
        "browser",
        "analysis",
    }


def test_the_example_of_a_fallback_is_right(tmp_path: Path) -> None:
    text = (REPOSITORY / "config" / "config.example.yaml").read_text(encoding="utf-8")
    pools, hosts = text.split("\nhosts:")
    own, fallback = pools.split("  # browser-fallback:")
    fallback = f"  # browser-fallback:{fallback}".replace("\n  # ", "\n  ").replace("  # b", "  b")
    path = tmp_path / "config.yaml"
    path.write_text(f"{own}{fallback}\nhosts:{hosts}", encoding="utf-8")
    settings = load_settings(path)
    assert settings.queues(broker="fallback") == settings.queues(broker="primary")


def test_the_reference_of_redis_has_every_key_and_who_may_reach_it() -> None:
    roles = REPOSITORY / "roles" / "redis" / "vars" / "main" / "users.yml"
    rights = yaml.safe_load(roles.read_text(encoding="utf-8"))["__redis_rights"]
    writers, readers = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for user, entry in rights.items():
        for grant in entry.get("grants", ()):
            for key in _keys(str(grant.get("rw", ""))):
                writers[key].add(user)
            for key in _keys(str(grant.get("read", ""))):
                readers[key].add(user)
    granted = {
        key: (writers[key], readers[key] - writers[key]) for key in writers.keys() | readers.keys()
    }

    page = (REPOSITORY / "docs" / "reference" / "redis.md").read_text(encoding="utf-8")
    section, *_ = page.split("## Keys\n")[1].split("\n## ")
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    told = {
        key: (set(re.findall(r"[a-z]+", writes)), set(re.findall(r"[a-z]+", reads)))
        for names, _, writes, reads in rows
        for key in _keys(names)
    }
    assert told == granted
    assert _keys(swarm.delivery.keys.__doc__ or "") <= told.keys()


def _keys(text: str) -> set[str]:
    """The names of keys, up to where each differs from the next."""
    text = text.replace("__redis_queue_keys", "<queue>")
    found = re.findall(r"(?<!:)<queue>|swarm:[a-z]+|celery[a-z-]+|_kombu\.[a-z]+", text)
    return {name.rstrip("-") for name in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_somewhere_and_nothing_is_left_open(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"@[A-Z]+@|\bTODO\b|\bTBD\b", text) == []
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_tests_that_are_named_exist(page: Path) -> None:
    for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8")):
        source = (REPOSITORY / path).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(async )?def {name}\(", source, re.MULTILINE), f"{path}::{name}"


def test_each_fault_of_the_scaler_has_a_test() -> None:
    page = REPOSITORY / "docs" / "explanation" / "scaler-faults.md"
    rows = [
        line.split(" | ")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and not line.startswith(("| fault", "| ---"))
    ]
    assert len(rows) > 30
    for fault, done, tests in rows:
        assert done.strip(), fault
        assert "::test_" in tests, f"{fault} has no test"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_make_targets_that_are_named_exist(page: Path) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.MULTILINE))
    named = set(re.findall(r"`make ([a-z][a-z-]*)", page.read_text(encoding="utf-8")))
    assert named <= targets

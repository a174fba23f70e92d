"""What an instance says of itself: written in one step, believed only when it is whole."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from swarm.status import DrainStatus, InstanceStatus
from tests.builders import make_status


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    status = make_status()
    status.write(tmp_path)
    [path] = tmp_path.iterdir()
    assert path.name == "browser-1.json"
    assert path.stat().st_mode & 0o777 == 0o644
    assert InstanceStatus.from_mapping(json.loads(path.read_bytes())) == status


def test_only_a_paused_or_drained_instance_says_so_and_older_scalers_understand_the_others(
    tmp_path: Path,
) -> None:
    make_status().write(tmp_path)
    [path] = tmp_path.iterdir()
    assert not json.loads(path.read_bytes()).keys() & {"paused", "drain"}
    drained = make_status(drain=DrainStatus("stopping", sequence=2, since=95.0))
    drained.write(tmp_path)
    assert InstanceStatus.from_mapping(json.loads(path.read_bytes())) == drained
    status = make_status(paused="memory 92 % of 1.5 GiB")
    status.write(tmp_path)
    assert InstanceStatus.from_mapping(json.loads(path.read_bytes())) == status
    assert "paused: memory 92 % of 1.5 GiB, " in status.line(broker_name="primary")


def test_a_second_write_replaces_the_first(tmp_path: Path) -> None:
    make_status(done=1).write(tmp_path)
    make_status(done=2).write(tmp_path)
    [path] = tmp_path.iterdir()
    assert json.loads(path.read_bytes())["done"] == 2


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        make_status().write(tmp_path / "absent")


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": None},
        {"colour": "red"},
        {"active": None},
        {"active": "0"},
        {"active": -1},
        {"active": True},
        {"reserved": 0.5},
        {"capacity": 0},
        {"phase": "resting"},
        {"idle_since": "90"},
        {"idle_since": float("nan")},
        {"service_time_s": "1.2"},
        {"service_time_s": -1.0},
        {"boot_time_s": []},
        {"written_at": None},
        {"written_at": float("inf")},
        {"pool": 3},
        {"drain": True},
        {"drain": {"state": "idle", "sequence": 1}},
        {"drain": {"state": "gone", "sequence": 1, "since": 1.0}},
        {"drain": {"state": "idle", "sequence": -1, "since": 1.0}},
    ],
)
def test_a_wrong_field_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="status "):
        InstanceStatus.from_mapping({**asdict(make_status()), **change})


@pytest.mark.parametrize(
    "field", sorted(asdict(make_status()).keys() - {"queues", "paused", "requests", "drain"})
)
def test_a_missing_field_is_refused(field: str) -> None:
    document = asdict(make_status())
    del document[field]
    with pytest.raises(ValueError, match="status "):
        InstanceStatus.from_mapping(document)


def test_queues_are_told_by_who_knows_them() -> None:
    document = asdict(make_status())
    del document["queues"]
    assert InstanceStatus.from_mapping(document).queues is None
    document["queues"] = ["browser", "slow"]
    assert InstanceStatus.from_mapping(document).queues == ("browser", "slow")
    with pytest.raises(ValueError, match="queues"):
        InstanceStatus.from_mapping({**document, "queues": [1]})


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"active": 1, "idle_since": None},
            "browser: 1 busy of 1, 153 done, 2 failed, redis primary",
        ),
        ({"failed": 0}, "browser: 0 busy of 1, 153 done, redis primary"),
        ({"failed": 0, "broker": "away"}, "browser: 0 busy of 1, 153 done, redis primary away"),
        (
            {"failed": 0, "browser": "down"},
            "browser: 0 busy of 1, 153 done, browser down, redis primary",
        ),
        (
            {"failed": 0, "drain": DrainStatus("idle", 3, 95.0)},
            "browser: drained, 0 busy of 1, 153 done, redis primary",
        ),
        (
            {"phase": "stopping", "failed": 0},
            "browser: stopping, 0 busy of 1, 153 done, redis primary",
        ),
    ],
)
def test_the_line_for_systemd(change: dict[str, Any], line: str) -> None:
    assert make_status(**change).line(broker_name="primary") == line

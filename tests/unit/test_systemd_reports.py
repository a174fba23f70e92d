"""A host's answer to the scaler: systemd's word and the instance's own, together."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest

from swarm.scaler.adapters.systemd import parse_list
from swarm.scaler.model import HostReport, Instance, InstanceState
from tests.builders import make_status


def entry(status: object = None, **fields: Any) -> dict[str, Any]:
    return {
        "pool": "browser",
        "number": 1,
        "active_state": "active",
        "sub_state": "running",
        "result": "success",
        "main_pid": 1001,
        "exit_status": 0,
        "state_changed_at": 40.0,
        "status": status,
        **fields,
    }


def word(**fields: Any) -> dict[str, Any]:
    return asdict(make_status(**fields))


DRAINED = {"state": "idle", "sequence": 4, "since": 90.0}


def parse(*entries: object, **fields: Any) -> HostReport:
    document = {
        "version": 1,
        "now": 100.0,
        "memory_available_mb": 512,
        "instances": entries,
        **fields,
    }
    return parse_list(json.dumps(document), host="h1", report_max_age_s=15, at=5000.0)


def test_pressures_are_read_and_an_earlier_release_tells_none() -> None:
    told = parse(memory_pressure=1.5, cpu_pressure=80)
    assert (told.memory_pressure, told.cpu_pressure) == (1.5, 80.0)
    assert (parse().memory_pressure, parse().cpu_pressure) == (None, None)
    with pytest.raises(ValueError, match="could not convert"):
        parse(cpu_pressure="much")


def instance(*args: Any, **fields: Any) -> Instance:
    [found] = parse(entry(*args, **fields)).instances
    return found


@pytest.mark.parametrize(
    ("active_state", "status", "state"),
    [
        ("active", word(), "idle"),
        ("active", word(active=1, idle_since=None), "busy"),
        ("active", word(reserved=1, idle_since=None), "busy"),
        ("active", word(paused="memory 92 % of 1.5 GiB"), "paused"),
        ("active", word(paused="pids 95 % of 100", active=1, idle_since=None), "paused"),
        ("active", word(drain=DRAINED), "draining"),
        ("active", word(drain={**DRAINED, "sequence": "4"}), "unreported"),
        ("active", word(drain={**DRAINED, "colour": "red"}), "unreported"),
        ("deactivating", word(drain=DRAINED), "stopping"),
        ("deactivating", word(paused="pids 95 % of 100"), "stopping"),
        ("active", word(phase="starting"), "starting"),
        ("active", word(phase="stopping"), "stopping"),
        ("active", None, "unreported"),
        ("active", word(written_at=84.9), "unreported"),
        ("active", word(written_at=85.0), "idle"),
        ("active", {"version": 1}, "unreported"),
        ("active", word(version=2), "unreported"),
        ("active", {**word(), "active": None}, "unreported"),
        ("active", {**word(), "service_time_s": "x"}, "unreported"),
        ("active", "words", "unreported"),
        ("active", [], "unreported"),
        ("activating", None, "starting"),
        ("activating", word(), "starting"),
        ("deactivating", word(), "stopping"),
        ("failed", None, "failed"),
        ("failed", word(), "failed"),
        ("reloading", None, "unreported"),
        ("something-new", None, "unreported"),
    ],
)
def test_both_words_give_the_state(active_state: str, status: object, state: str) -> None:
    assert instance(status, active_state=active_state).state is InstanceState(state)


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (None, "it left no status file"),
        (word(written_at=40.0), "its status file is 60 s old"),
        (word(version=2), "its status file is not understood: status version 2, expected 1"),
        ({**word(), "active": None}, "its status file is not understood: status with wrong active"),
        (word(), None),
    ],
)
def test_why_an_instance_is_not_believed_is_told(status: object, trouble: str | None) -> None:
    assert instance(status).trouble == trouble


def test_moments_on_the_hosts_clock_become_moments_on_ours() -> None:
    found = instance(word(idle_since=70.0), state_changed_at=40.0)
    assert (found.state_since, found.idle_since) == (4940.0, 4970.0)
    assert (found.state_for_s(5001.0), found.idle_for_s(5001.0)) == (61.0, 31.0)


def test_only_an_idle_instance_has_been_idle() -> None:
    assert instance(word(active=1, idle_since=10.0)).idle_since is None
    assert instance(word(idle_since=None)).idle_since is None
    assert instance(word(idle_since=120.0)).idle_for_s(5000.0) == 0.0


def test_an_inactive_unit_is_no_instance() -> None:
    assert parse(entry(active_state="inactive")).instances == ()


def test_the_instances_measures_are_taken_over() -> None:
    found = instance(word(active=1, reserved=2, capacity=4, idle_since=None))
    assert (found.active, found.reserved, found.capacity, found.tasks_ended) == (1, 2, 4, 155)
    assert (found.service_time_s, found.boot_time_s, found.pid) == (1.25, 0.8, 1001)
    assert found.host == "h1"


@pytest.mark.parametrize(
    ("active_state", "exit_status", "misconfigured"),
    [("failed", 2, True), ("failed", 1, False), ("active", 2, False)],
)
def test_exit_status_2_is_a_matter_of_configuration(
    active_state: str, exit_status: int, *, misconfigured: bool
) -> None:
    found = instance(word(), active_state=active_state, exit_status=exit_status)
    assert found.misconfigured is misconfigured


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "not json",
        "[]",
        "{}",
        "null",
        '{"version": 2, "now": 1, "instances": []}',
        '{"version": 1, "instances": []}',
        '{"version": 1, "now": "soon", "instances": []}',
        '{"version": 1, "now": 1, "instances": 3}',
        '{"version": 1, "now": 1, "instances": [3]}',
        '{"version": 1, "now": 1, "instances": [{}]}',
        (
            '{"version": 1, "now": 1, "instances": [{"active_state": "active", "status": null,'
            ' "pool": "b", "number": "x", "state_changed_at": 0, "main_pid": 1, "exit_status": 0}]}'
        ),
    ],
)
def test_an_answer_that_is_not_understood_is_an_error_of_the_listed_kinds(answer: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        parse_list(answer, host="h1", report_max_age_s=15, at=5000.0)


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (None, "it left no status file"),
        (word(written_at=70.0), "its status file is 30 s old"),
        (word(version=2), "its status file is not understood: status version 2, expected 1"),
    ],
)
def test_an_unreported_instance_says_why(status: object, trouble: str) -> None:
    assert instance(status, active_state="active").trouble == trouble


def test_an_instance_that_starts_has_no_trouble_yet() -> None:
    assert instance(None, active_state="activating").trouble is None


@pytest.mark.parametrize(
    ("active_state", "status", "waits"),
    [
        ("active", word(), True),
        ("active", word(written_at=93.0), True),
        # Still believed to be idle, but a process that was frozen since is no signal.
        ("active", word(written_at=92.9), False),
        ("active", word(broker="away"), False),
        ("active", word(active=1, idle_since=None), False),
        ("active", word(reserved=1, idle_since=None), False),
        ("active", word(phase="stopping"), False),
        ("active", word(phase="starting"), False),
        ("deactivating", word(), False),
        ("activating", word(), False),
        ("active", None, False),
    ],
)
def test_only_a_fresh_connected_idle_instance_waits(
    active_state: str, status: object, *, waits: bool
) -> None:
    assert instance(status, active_state=active_state).waits is waits


def test_the_queues_of_an_instance_are_those_it_names() -> None:
    assert instance(word()).queues is None
    assert instance(word(queues=("slow",))).queues == ("slow",)


def test_a_paused_instance_says_why_and_nothing_of_its_queue() -> None:
    found = instance(word(paused="memory 92 % of 1.5 GiB"))
    assert found.trouble == "paused: memory 92 % of 1.5 GiB"
    assert not found.waits
    assert found.idle_since is None


def test_a_drained_instance_says_how_far_it_is_and_nothing_of_its_queue() -> None:
    found = instance(word(drain=DRAINED, paused="memory 92 % of 1.5 GiB"))
    assert found.trouble == "drained, sequence 4"
    assert not found.waits
    assert found.idle_since is None
    found = instance(word(drain={**DRAINED, "state": "stopping"}, active=1, idle_since=None))
    assert found.trouble == "draining, sequence 4"


def test_whether_an_instance_reaches_its_broker_is_its_own_word() -> None:
    assert instance(word()).connected is True
    assert instance(word(broker="away")).connected is False
    assert instance(None).connected is None
    assert instance(word(broker="away", written_at=84.9)).connected is None

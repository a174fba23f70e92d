"""What Prometheus sees of the scaler, and the instances it is sent to."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import isnan
from pathlib import Path

import aiohttp
import pytest
import yaml

from swarm.brokers.budget import Budget
from swarm.delivery.reaper import GivenBack
from swarm.errors import ConfigError
from swarm.scaler.adapters.ages import Ages
from swarm.scaler.adapters.metrics import ScalerMetrics
from swarm.scaler.aftermath import Event, Finding
from swarm.scaler.metering import Meter
from swarm.scaler.model import (
    ActionResult,
    BrokerCondition,
    Cause,
    Decision,
    Direction,
    Drain,
    HostReport,
    Instance,
    Outcome,
    Renew,
    Start,
    Stop,
    Undrain,
    Unknown,
)
from swarm.scaler.readings import Reading
from tests.builders import (
    make_draining,
    make_instance,
    make_observation,
    make_settings,
    make_two_brokers,
)

DECISION = Decision("browser", Direction.UP, 2, 4, 9, Cause.BACKLOG, "120 waiting")


def outcome(waiting: int | Unknown = 120) -> Outcome:
    instances = [make_instance(1, "busy"), make_instance(2, "failed")]
    far = HostReport((make_instance(3, host="h2"), make_instance(1, pool="other", host="h2")))
    return Outcome(
        make_observation(waiting, instances, hosts={"h2": far, "h3": Unknown("no answer")}),
        {"browser": DECISION},
        (
            ActionResult(Start("h1", "browser", 4)),
            ActionResult(Stop("h2", "browser", 3), error="Access denied"),
        ),
    )


def value(metrics: ScalerMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"swarm_scaler_{name}", labels)


def test_the_gauges_follow_what_changes_of_a_host() -> None:
    metrics = ScalerMetrics(make_settings())
    busy, idle = make_instance(1, "busy"), make_instance(2)

    def show(instances: list[Instance] | Unknown) -> None:
        made = Outcome(make_observation(0, instances), {"browser": DECISION})
        metrics.show(made)

    for _ in range(2):
        show([busy, idle])
    show([replace(idle, number=1), idle])
    labels = {"pool": "browser", "host": "h1"}
    assert value(metrics, "instances", **labels, state="busy") is None
    assert value(metrics, "instances", **labels, state="idle") == 2
    show(Unknown("no answer"))
    assert value(metrics, "instances", **labels, state="idle") is None
    assert value(metrics, "host_up", host="h1") == 0
    show([idle])
    assert value(metrics, "instances", **labels, state="idle") == 1
    assert value(metrics, "host_up", host="h1") == 1
    without = replace(make_observation(0), hosts={})
    metrics.show(Outcome(without, {"browser": DECISION}))
    assert value(metrics, "instances", **labels, state="idle") is None
    assert value(metrics, "host_up", host="h1") is None


def test_a_turn_becomes_metrics() -> None:
    metrics = ScalerMetrics(make_settings())
    metrics.show(outcome())
    assert value(metrics, "queue_waiting", pool="browser") == 120
    assert value(metrics, "instances_desired", pool="browser") == 4
    assert value(metrics, "instances_wanted", pool="browser") == 9
    assert value(metrics, "instances", pool="browser", host="h1", state="busy") == 1
    assert value(metrics, "host_up", host="h1") == 1
    assert value(metrics, "host_up", host="h3") == 0
    assert value(metrics, "decisions_total", pool="browser", direction="up", cause="backlog") == 1
    started = {"pool": "browser", "host": "h1", "verb": "start", "result": "done"}
    assert value(metrics, "actions_total", **started) == 1
    stopped = {"pool": "browser", "host": "h2", "verb": "stop", "result": "failed"}
    assert value(metrics, "actions_total", **stopped) == 1


def test_turns_are_told_apart_by_a_quarter_of_their_time() -> None:
    metrics = ScalerMetrics(make_settings())
    for seconds in (0.041, 0.049, 0.052, 49.0):
        metrics.turned(seconds)
    assert value(metrics, "turn_seconds_bucket", le="0.04") == 0
    assert value(metrics, "turn_seconds_bucket", le="0.05") == 2
    assert value(metrics, "turn_seconds_bucket", le="0.063") == 3
    assert value(metrics, "turn_seconds_bucket", le="50.0") == 4


def test_drains_are_counted_and_timed() -> None:
    metrics = ScalerMetrics(make_settings())

    def count(result: str) -> float | None:
        return value(metrics, "drains_total", pool="browser", result=result)

    assert [count(each) for each in ("begun", "cancelled", "completed")] == [0, 0, 0]
    drained = [make_draining(n, draining_for_s=5.0 * n) for n in (1, 2, 3)]
    where = [each.key for each in drained]
    results = (
        ActionResult(Drain("h1", "browser", 4)),
        ActionResult(Drain("h1", "browser", 5), error="it does not answer"),
        ActionResult(Renew(*where[0])),
        ActionResult(Undrain(*where[0])),
        ActionResult(Stop(*where[1])),
        ActionResult(Stop(*where[2]), error="Access denied"),
    )
    made = Outcome(make_observation(0, drained), {"browser": DECISION}, results)
    metrics.show(replace(made, overdue={where[2]: "it has a task"}))
    assert [count(each) for each in ("begun", "cancelled", "completed")] == [1, 1, 1]
    assert value(metrics, "drain_seconds_sum", pool="browser") == 10.0
    assert value(metrics, "drain_seconds_count", pool="browser") == 1
    assert value(metrics, "drains_overdue", pool="browser") == 1
    labels = {"pool": "browser", "host": "h1"}
    assert value(metrics, "instances", **labels, state="draining") == 3
    assert value(metrics, "actions_total", **labels, verb="renew", result="done") == 1
    metrics.show(made)
    assert value(metrics, "drains_overdue", pool="browser") == 0


def test_an_unknown_queue_has_no_length() -> None:
    metrics = ScalerMetrics(make_settings())
    metrics.show(outcome())
    metrics.show(outcome(Unknown("401")))
    assert value(metrics, "queue_waiting", pool="browser") is None


def test_surveys_and_what_they_gave_back_are_counted() -> None:
    metrics = ScalerMetrics(make_settings())
    age = value(metrics, "survey_age_seconds", broker="primary")
    assert age is not None
    assert isnan(age)
    assert value(metrics, "given_back_total", broker="primary", result="returned") == 0
    metrics.surveyed(
        "primary", [GivenBack("h1:browser:1:a", 2, 1, "no lease"), GivenBack("b", 1, 0, "")]
    )
    metrics.survey_failed("primary")
    assert value(metrics, "given_back_total", broker="primary", result="returned") == 3
    assert value(metrics, "given_back_total", broker="primary", result="dead") == 1
    assert value(metrics, "surveys_total", broker="primary", result="done") == 1
    assert value(metrics, "surveys_total", broker="primary", result="failed") == 1
    assert 0 <= (value(metrics, "survey_age_seconds", broker="primary") or 0) < 5


def test_each_broker_has_surveys_of_its_own() -> None:
    metrics = ScalerMetrics(make_two_brokers())
    metrics.surveyed("primary", [GivenBack("h1:browser:1:a", 2, 1, "no lease")])
    metrics.survey_failed("fallback")
    given = {"broker": "primary", "result": "returned"}
    assert value(metrics, "given_back_total", **given) == 2
    assert value(metrics, "given_back_total", **given | {"broker": "fallback"}) == 0
    assert value(metrics, "surveys_total", broker="fallback", result="failed") == 1
    assert value(metrics, "surveys_total", broker="primary", result="failed") is None
    assert isnan(value(metrics, "survey_age_seconds", broker="fallback") or 0)
    assert value(ScalerMetrics(make_settings()), "survey_age_seconds", broker="fallback") is None


@pytest.mark.parametrize(("down_for_s", "up"), [(None, 1), (0.0, 0), (42.0, 0)])
def test_a_broker_is_up_until_surveys_of_it_fail(down_for_s: float | None, up: int) -> None:
    metrics = ScalerMetrics(make_two_brokers())
    made = outcome()
    brokers = {"primary": BrokerCondition(down_for_s, "gone"), "fallback": BrokerCondition()}
    metrics.show(replace(made, observation=replace(made.observation, brokers=brokers)))
    assert value(metrics, "broker_up", broker="primary") == up
    assert value(metrics, "broker_up", broker="fallback") == 1


def test_prometheus_is_sent_to_every_instance_that_may_answer() -> None:
    metrics = ScalerMetrics(make_settings())
    assert json.loads(metrics.targets()) == []
    metrics.show(outcome())
    assert [(t["targets"], t["labels"]["unit"]) for t in json.loads(metrics.targets())] == [
        (["127.0.0.1:9101"], "celery-browser@1"),
        (["10.77.0.12:9103"], "celery-browser@3"),
    ]


def test_prometheus_hears_of_what_changes() -> None:
    metrics = ScalerMetrics(make_settings())

    def units(instances: list[Instance] | Unknown) -> list[str]:
        metrics.show(Outcome(make_observation(0, instances), {"browser": DECISION}))
        return [each["labels"]["unit"] for each in json.loads(metrics.targets())]

    first, second = make_instance(1), make_instance(2)
    assert units([first]) == ["celery-browser@1"]
    assert units([first, second]) == ["celery-browser@1", "celery-browser@2"]
    assert units([second]) == ["celery-browser@2"]
    assert units([make_instance(2, "failed")]) == []
    assert units(Unknown("no answer")) == []


def test_prometheus_hears_of_a_host_that_moved() -> None:
    metrics = ScalerMetrics(make_settings())
    metrics.show(outcome())
    assert json.loads(metrics.targets())[1]["targets"] == ["10.77.0.12:9103"]
    hosts = {
        "h1": {"address": "local", "max_instances": 4},
        "h2": {"address": "10.77.0.99", "max_instances": 4},
    }
    metrics.configure(make_settings(hosts=hosts))
    assert json.loads(metrics.targets())[1]["targets"] == ["10.77.0.99:9103"]


def test_an_ipv6_address_is_bracketed() -> None:
    hosts = {name: {"address": "fd00::1", "max_instances": 4} for name in ("h1", "h2")}
    metrics = ScalerMetrics(make_settings(hosts=hosts))
    metrics.show(outcome())
    assert json.loads(metrics.targets())[0]["targets"] == ["[fd00::1]:9101"]


async def test_both_pages_are_served(unused_tcp_port: int) -> None:
    metrics = ScalerMetrics(make_settings())
    await metrics.serve("127.0.0.1", unused_tcp_port)
    metrics.show(outcome())
    base = f"http://127.0.0.1:{unused_tcp_port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/metrics") as response:
            assert "swarm_scaler_queue_waiting" in await response.text()
        async with session.get(f"{base}/sd") as response:
            assert response.content_type == "application/json"
            assert json.loads(await response.text()) == json.loads(metrics.targets())
    await metrics.close()
    await metrics.close()


async def test_a_taken_port_is_a_matter_of_configuration(unused_tcp_port: int) -> None:
    first, second = ScalerMetrics(make_settings()), ScalerMetrics(make_settings())
    await first.serve("127.0.0.1", unused_tcp_port)
    with pytest.raises(ConfigError, match=r"scaler\.metrics_port: got 127\.0\.0\.1 port"):
        await second.serve("127.0.0.1", unused_tcp_port)
    await first.close()


class _Gate:
    async def close_to_producers(self, reason: str, until: float) -> None: ...

    async def open_to_producers(self) -> None: ...


async def test_a_budgets_figures_are_those_of_this_period(tmp_path: Path) -> None:
    now = datetime(2026, 11, 30, 23, tzinfo=UTC)
    meter = Meter(
        "primary",
        Budget(1000, "month"),
        used_so_far=0,
        path=tmp_path / "requests.json",
        gate=_Gate(),
        clock=lambda: now,
    )
    metrics = ScalerMetrics(make_settings())

    async def shown(workers: int, flower: int) -> tuple[float | None, float | None]:
        readings = [Reading("workers h1 browser 1", workers, 1), Reading("flower", flower, 1)]
        await meter.account(readings, (), 0)
        metrics.show_budgets({"primary": meter})

        def of(component: str) -> float | None:
            labels = {"broker": "primary", "component": component}
            return metrics.registry.get_sample_value("swarm_scaler_broker_requests", labels)

        return of("workers"), of("flower")

    assert await shown(700, 90) == (700, 90)
    now += timedelta(hours=2)
    # Nobody has heard of Flower since the reset.
    assert await shown(705, 90) == (5, None)
    value = metrics.registry.get_sample_value
    labels = {"broker": "primary"}
    assert value("swarm_scaler_broker_budget_requests", {**labels, "figure": "used"}) == 5
    assert value("swarm_scaler_broker_takes_tasks", labels) == 1


def test_what_came_of_stops_is_counted_from_zero() -> None:
    metrics = ScalerMetrics(make_settings())
    assert value(metrics, "kills_total", pool="analysis") == 0
    for event in Event:
        metrics.found(Finding(event, "browser", "..."))
    for name in ("kills_total", "late_tasks_total", "reversals_total"):
        assert value(metrics, name, pool="browser") == 1


def test_what_a_dry_run_would_do_is_not_counted_as_done() -> None:
    metrics = ScalerMetrics(make_settings(), dry_run=True)
    metrics.show(outcome())
    labels = {"pool": "browser", "host": "h1", "verb": "start"}
    assert value(metrics, "actions_total", **labels, result="done") is None
    assert value(metrics, "actions_total", **labels, result="dry-run") == 1


def test_alerts_are_on_metrics_that_there_are() -> None:
    metrics = ScalerMetrics(make_settings())
    metrics.registry.register(Ages())
    there = {family.name for family in metrics.registry.collect()}
    rules = Path(__file__).parents[2] / "roles" / "prometheus" / "files" / "swarm.rules.yml"
    [group] = yaml.safe_load(rules.read_text(encoding="utf-8"))["groups"]
    named = {
        name.removesuffix("_total")
        for rule in group["rules"]
        for name in re.findall(r"swarm_scaler_[a-z_]+", rule["expr"])
    }
    assert named
    assert named <= there

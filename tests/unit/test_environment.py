"""Variables of a worker: each wrong one is named, all at once."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from swarm.environment import (
    WorkerEnvironment,
    read_broker,
    read_credential,
    read_pools_brokers,
    read_served_broker,
    read_settings,
    read_worker,
)
from swarm.errors import ConfigError
from swarm.variables import Autoscale

CONFIG = """
pools:
  browser: {task_type: browser, queues: [browser, slow], metrics_port_base: 9100, concurrency: 2}
  analysis: {task_type: analysis, queues: [analysis], metrics_port_base: 9200}
  heavy: {task_type: browser, queues: [heavy], metrics_port_base: 9300}
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG, encoding="utf-8")
    return {
        "SWARM_CONFIG": str(config),
        "SWARM_POOL": "browser",
        "SWARM_INSTANCE": "3",
        "REDIS_URL": "redis://:pw@h:6379/0",
    }


def wrong(environ: dict[str, str]) -> dict[str, str]:
    """Variable -> what was expected of it."""
    with pytest.raises(ConfigError) as caught:
        read_worker(environ)
    return {problem.where: problem.expected for problem in caught.value.problems}


def test_without_celery_variables_the_pool_decides(environ: dict[str, str]) -> None:
    worker = read_worker(environ)
    assert isinstance(worker, WorkerEnvironment)
    assert worker.instance == 3
    assert worker.metrics_port == 9103
    assert worker.queues == ("browser", "slow")
    assert worker.concurrency == worker.capacity == 2
    assert worker.autoscale is None
    assert worker.celery_pool == "prefork"
    assert worker.log_level == "info"
    assert worker.max_tasks == 100
    assert worker.host == socket.gethostname()
    assert worker.metrics_address == "127.0.0.1"


def test_the_six_variables_are_read(environ: dict[str, str]) -> None:
    worker = read_worker(
        environ
        | {
            "CELERY_QUEUES": "heavy, slow",
            "CELERY_CONCURRENCY": "3",
            "CELERY_AUTOSCALE": "4, 2",
            "CELERY_POOL": "PREFORK",
            "CELERY_LOGLEVEL": "DEBUG",
            "CELERY_MAX_TASKS": "7",
            "SWARM_HOST": "worker1",
            "SWARM_METRICS_ADDRESS": "10.77.0.11",
        }
    )
    assert worker.queues == ("heavy", "slow")
    assert worker.concurrency == 3
    assert worker.autoscale == Autoscale(maximum=4, minimum=2)
    assert worker.capacity == 4
    assert worker.celery_pool == "prefork"
    assert worker.log_level == "debug"
    assert worker.max_tasks == 7
    assert worker.host == "worker1"
    assert worker.metrics_address == "10.77.0.11"


def test_a_solo_worker_runs_one_task_whatever_the_pool_says(environ: dict[str, str]) -> None:
    assert read_worker(environ | {"CELERY_POOL": "solo"}).capacity == 1


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SWARM_POOL", "", "one of browser, analysis"),
        ("SWARM_POOL", "browsers", "one of browser, analysis"),
        ("SWARM_INSTANCE", "", "a whole number from 1 to 99"),
        ("SWARM_INSTANCE", "0", "a whole number from 1 to 99"),
        ("SWARM_INSTANCE", "100", "a whole number from 1 to 99"),
        ("SWARM_INSTANCE", "one", "a whole number from 1 to 99"),
        ("SWARM_INSTANCE", "-1", "a whole number from 1 to 99"),
        ("SWARM_INSTANCE", "1\n", "a whole number from 1 to 99"),
        ("SWARM_INSTANCE", "\u0663", "a whole number from 1 to 99"),
        ("CELERY_CONCURRENCY", "0", "a whole number from 1 to 64"),
        ("CELERY_CONCURRENCY", "65", "a whole number from 1 to 64"),
        ("CELERY_CONCURRENCY", "2.5", "a whole number from 1 to 64"),
        ("CELERY_MAX_TASKS", "0", "a whole number from 1 to 1000000"),
        ("CELERY_MAX_TASKS", "9" * 30, "a whole number from 1 to 1000000"),
        ("CELERY_POOL", "gevent", "one of prefork, solo, threads"),
        ("CELERY_LOGLEVEL", "loud", "one of debug, info, warning, error, critical"),
        ("CELERY_QUEUES", "browser,", "queue names separated by single commas"),
        ("CELERY_QUEUES", "other", "queues of task_type browser: browser, slow, heavy"),
        ("CELERY_QUEUES", "analysis", "queues of task_type browser: browser, slow, heavy"),
        ("CELERY_AUTOSCALE", "4", "max,min"),
        ("CELERY_AUTOSCALE", "2,4", "1 <= min <= max <= 64"),
        ("CELERY_AUTOSCALE", "4,0", "1 <= min <= max <= 64"),
        ("CELERY_AUTOSCALE", "65,1", "1 <= min <= max <= 64"),
        ("REDIS_URL", "http://h", "redis://"),
        ("SWARM_CONFIG", "/absent.yaml", "a YAML file"),
    ],
)
def test_a_wrong_variable_is_named_with_what_was_expected(
    environ: dict[str, str], variable: str, value: str, expected: str
) -> None:
    found = wrong(environ | {variable: value})
    where = value if variable == "SWARM_CONFIG" else variable
    assert list(found) == [where]
    assert expected in found[where]


def test_every_wrong_variable_is_reported_at_once(environ: dict[str, str]) -> None:
    found = wrong(
        {
            "SWARM_CONFIG": environ["SWARM_CONFIG"],
            "SWARM_POOL": "x",
            "SWARM_INSTANCE": "x",
            "REDIS_URL": "x",
            "CELERY_QUEUES": ",",
            "CELERY_CONCURRENCY": "x",
            "CELERY_AUTOSCALE": "x",
            "CELERY_POOL": "x",
            "CELERY_LOGLEVEL": "x",
            "CELERY_MAX_TASKS": "x",
        }
    )
    assert set(found) == {
        "SWARM_POOL",
        "SWARM_INSTANCE",
        "REDIS_URL",
        "CELERY_QUEUES",
        "CELERY_CONCURRENCY",
        "CELERY_AUTOSCALE",
        "CELERY_POOL",
        "CELERY_LOGLEVEL",
        "CELERY_MAX_TASKS",
    }


def test_a_wrong_config_does_not_hide_wrong_variables(
    environ: dict[str, str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("pools: {browser: {colour: red}}", encoding="utf-8")
    found = wrong(environ | {"SWARM_CONFIG": str(broken), "CELERY_POOL": "x", "REDIS_URL": ""})
    assert "CELERY_POOL" in found
    assert "REDIS_URL" in found
    assert f"{broken}: pools.browser.colour" in found


@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_only_prefork_autoscales(environ: dict[str, str], pool: str) -> None:
    found = wrong(environ | {"CELERY_POOL": pool, "CELERY_AUTOSCALE": "4,1"})
    assert found == {
        "CELERY_AUTOSCALE": f"nothing, because CELERY_POOL is {pool} and only prefork can autoscale"
    }


def test_solo_with_a_concurrency_is_a_contradiction(environ: dict[str, str]) -> None:
    found = wrong(environ | {"CELERY_POOL": "solo", "CELERY_CONCURRENCY": "2"})
    assert found == {"CELERY_CONCURRENCY": "1, because CELERY_POOL is solo"}


def test_a_credential_comes_from_systemds_directory(tmp_path: Path) -> None:
    (tmp_path / "flower-auth").write_text("user:password\n", encoding="utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_credential("flower-auth", environ) == "user:password"
    assert read_credential("absent", environ) is None


def test_the_variable_comes_before_the_credential(tmp_path: Path) -> None:
    (tmp_path / "redis-url").write_text("redis://from-file\n", encoding="utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_broker(environ).address == "redis://from-file:6379"
    environ["REDIS_URL"] = "redis://from-variable"
    assert read_broker(environ).address == "redis://from-variable:6379"


TWO_BROKERS = """
pools:
  browser: {task_type: browser, queues: [browser], metrics_port_base: 9100}
  browser-fallback:
    {broker: fallback, task_type: browser, queues: [browser, spare], metrics_port_base: 9200}
"""
URLS = {"REDIS_URL": "redis://:pw@h", "REDIS_FALLBACK_URL": "redis://:pw@here"}


@pytest.fixture
def two_brokers(environ: dict[str, str]) -> dict[str, str]:
    Path(environ["SWARM_CONFIG"]).write_text(TWO_BROKERS, encoding="utf-8")
    del environ["SWARM_POOL"], environ["REDIS_URL"]
    return environ


def test_a_worker_serves_the_broker_of_its_pool(two_brokers: dict[str, str]) -> None:
    for pool, variable in (("browser", "REDIS_URL"), ("browser-fallback", "REDIS_FALLBACK_URL")):
        environ = two_brokers | {"SWARM_POOL": pool}
        # That it is no longer in use does not keep what it holds from being done.
        assert read_worker(environ | {variable: URLS[variable]}).broker.variable == variable
        assert set(wrong(environ)) == {variable}
    fallback = two_brokers | {"SWARM_POOL": "browser-fallback"} | URLS
    assert read_worker(fallback | {"CELERY_QUEUES": "spare"}).queues == ("spare",)
    found = wrong(two_brokers | {"SWARM_POOL": "browser", "CELERY_QUEUES": "spare"} | URLS)
    assert found == {"CELERY_QUEUES": "queues of task_type browser: browser"}


def test_a_service_is_for_one_broker_and_a_producer_for_all(two_brokers: dict[str, str]) -> None:
    settings = read_settings(two_brokers)

    def served(**environ: str) -> str | None:
        broker = read_served_broker(settings, URLS | environ)
        return None if broker is None else broker.name

    assert served() is None
    assert served(SWARM_POOL="browser") == "primary"
    assert served(SWARM_POOL="browser-fallback") == "fallback"
    assert served(SWARM_BROKER="fallback") == "fallback"
    with pytest.raises(ConfigError, match="SWARM_BROKER: got 'other', expected one of primary"):
        served(SWARM_BROKER="other")


def test_who_may_do_more_has_an_address_of_his_own(tmp_path: Path) -> None:
    for name, user in (("redis-url", "producer"), ("redis-url-scaler", "scaler")):
        (tmp_path / name).write_text(f"redis://{user}:secret@h\n", encoding="utf-8")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert read_broker(environ).url.startswith("redis://producer:")
    assert read_broker(environ, credential="redis-url-scaler").url.startswith("redis://scaler:")


def test_without_a_broker_both_ways_to_give_one_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"REDIS_URL: got nothing.*/etc/swarm/credentials"):
        read_broker({"CREDENTIALS_DIRECTORY": str(tmp_path)})


def test_the_scaler_needs_each_broker_that_has_a_pool(two_brokers: dict[str, str]) -> None:
    settings = read_settings(two_brokers)
    assert [each.name for each in read_pools_brokers(settings, URLS)] == ["primary", "fallback"]
    nowhere = {"CREDENTIALS_DIRECTORY": "/absent"}
    with pytest.raises(ConfigError) as caught:
        read_pools_brokers(settings, nowhere)
    assert [problem.where for problem in caught.value.problems] == list(URLS)
    one_redis = dict.fromkeys(URLS, "redis://:pw@h")
    with pytest.raises(ConfigError, match=r"REDIS_FALLBACK_URL: .* another Redis than REDIS_URL"):
        read_pools_brokers(settings, one_redis)


def test_without_a_pool_the_fallback_is_not_asked_for(environ: dict[str, str]) -> None:
    [broker] = read_pools_brokers(read_settings(environ), {"REDIS_URL": "redis://:pw@h"})
    assert broker.name == "primary"


def test_the_scaler_finds_its_own_way_into_the_fallback(
    two_brokers: dict[str, str], tmp_path: Path
) -> None:
    settings = read_settings(two_brokers)
    for name in ("redis-url", "redis-fallback-url"):
        (tmp_path / name).write_text(f"redis://scaler:secret@{name}\n", encoding="utf-8")
    brokers = read_pools_brokers(settings, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert [each.address for each in brokers] == [
        "redis://redis-url:6379",
        "redis://redis-fallback-url:6379",
    ]

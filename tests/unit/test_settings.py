"""config.yaml: every error at once, each naming key, value and what was expected."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from swarm.config import config_path, load_settings
from swarm.errors import ConfigError
from swarm.settings import Settings
from tests.builders import ANALYSIS, BROWSER, make_settings

GOOD = """
pools:
  browser:
    {task_type: browser, queues: [browser], metrics_port_base: 9100,
     min_instances: 1, max_instances: 6}
  analysis: {task_type: analysis, queues: [analysis], max_instances: 2, metrics_port_base: 9200}
hosts:
  worker1: {address: 10.77.0.11, max_instances: 4}
  here: {address: local, max_instances: 2, pools: [analysis]}
"""


def write(directory: Path, text: str) -> Path:
    path = directory / "config.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def problems(directory: Path, text: str) -> list[tuple[str, str, str]]:
    """(key without the path of the file, value, expected) of every problem."""
    path = write(directory, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    return [
        (problem.where.removeprefix(f"{path}: "), problem.value, problem.expected)
        for problem in caught.value.problems
    ]


def test_a_good_file_gives_settings_with_defaults(tmp_path: Path) -> None:
    settings = load_settings(write(tmp_path, GOOD))
    assert settings.queues() == ("browser", "analysis")
    assert settings.queue_for("analysis") == "analysis"
    assert settings.pools["browser"].concurrency == 1
    assert settings.hosts["here"].is_local
    assert not settings.hosts["worker1"].is_local
    assert settings.hosts["worker1"].serves("browser")
    assert not settings.hosts["here"].serves("browser")
    assert settings.scaler.interval_s == 2.0
    assert settings.browser.executable == Path("/usr/bin/chromium-headless-shell")


def test_the_file_is_named_by_the_environment() -> None:
    assert config_path({}) == Path("/etc/swarm/config.yaml")
    assert config_path({"SWARM_CONFIG": ""}) == Path("/etc/swarm/config.yaml")
    assert config_path({"SWARM_CONFIG": "/x.yaml"}) == Path("/x.yaml")


def test_every_error_is_reported_at_once_with_key_value_and_expectation(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
        pools:
          browser: {task_type: tea, queues: [], max_instances: none, metrics_port_base: 80}
          "9": {task_type: browser, queues: [a b], metrics_port_base: 9200, colour: red}
        hosts:
          w1: {address: "", max_instances: 0, port: 70000}
          w2: {address: a}
        scaler: {interval_s: 0.1, surprise: 1}
        flower: {url: "ftp://flower"}
        browser: {sandbox: "yes please"}
        """,
    )
    assert {(key, value) for key, value, _ in found} == {
        ("pools.browser.task_type", "'tea'"),
        ("pools.browser.queues", "[]"),
        ("pools.browser.max_instances", "'none'"),
        ("pools.browser.metrics_port_base", "80"),
        ("pools.9", "'9'"),
        ("pools.9.queues.0", "'a b'"),
        ("pools.9.colour", "'red'"),
        ("hosts.w1.address", "''"),
        ("hosts.w1.max_instances", "0"),
        ("hosts.w1.port", "70000"),
        ("hosts.w2.max_instances", "nothing"),
        ("scaler.interval_s", "0.1"),
        ("scaler.surprise", "1"),
        ("flower.url", "'ftp://flower'"),
        ("browser.sandbox", "'yes please'"),
    }
    assert all(expected for _, _, expected in found)


def test_the_message_has_one_line_a_problem(tmp_path: Path) -> None:
    path = write(tmp_path, "pools: {}\nhosts: 3\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems) == 2
    assert all(
        line.startswith(f"{path}: ") and ": got " in line and ", expected " in line
        for line in lines
    )
    assert caught.value.exit_status == 2


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("", "an empty file", "mapping"),
        ("- 1", "a list", "mapping"),
        ("just words", "a str", "mapping"),
        ("pools: {", "while parsing a flow node", "valid YAML"),
        ("pools: !!python/object/apply:os.system [id]", "could not determine", "valid YAML"),
        ("pools: {a: 1, a: 2}", "the key 'a' is given twice", "valid YAML"),
        ("pools: 1\nhosts: 2\npools: 3", "the key 'pools' is given twice", "valid YAML"),
        ("pools: {1: 1, '1': 2}", "the key '1' is given twice", "valid YAML"),
        ("pools:\n\tbrowser: 1", "cannot start any token", "valid YAML"),
        ("pools: \0", "unacceptable character", "valid YAML"),
        ("pools: 1\n---\npools: 2", "expected a single document", "valid YAML"),
        ("? [a, b]\n: 1", "unhashable key", "valid YAML"),
        # What PyYAML takes for a value of a type and does not check.
        ("pools: 2024-13-45", "no timestamp: '2024-13-45'", "valid YAML"),
        ("pools: !!int abc", "no int: 'abc'", "valid YAML"),
        ("pools: !!float abc", "no float: 'abc'", "valid YAML"),
        ("pools: !!bool abc", "no bool: 'abc'", "valid YAML"),
        ("pools: !!timestamp abc", "no timestamp: 'abc'", "valid YAML"),
        ("pools: " + "9" * 5000, "no int: '999", "valid YAML"),
        ("pools: " + "[" * 5000, "too many levels", "lists and mappings"),
        ("pools: " + "{a: " * 5000, "too many levels", "lists and mappings"),
    ],
)
def test_what_is_no_configuration_says_what_it_is(
    tmp_path: Path, text: str, value: str, expected: str
) -> None:
    [(_, got, wanted)] = problems(tmp_path, text)
    assert value in got
    assert expected in wanted


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: got no file to read \(No such file"):
        load_settings(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_settings(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("pools: é".encode("latin-1"))
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(latin)


@pytest.mark.parametrize(
    ("text", "key", "expected"),
    [
        (
            GOOD.replace("min_instances: 1, max_instances: 6", "min_instances: 3"),
            "pools.browser.min_instances",
            "at most max_instances, which is 1",
        ),
        (
            GOOD.replace("min_instances: 1", "min_instances: 5"),
            "pools.browser.min_instances",
            "at most 4, all the hosts' max_instances together",
        ),
        (
            GOOD.replace("min_instances: 1", "min_instances: 4").replace(
                "max_instances: 2, metrics", "min_instances: 3, max_instances: 3, metrics"
            ),
            "hosts.*.max_instances",
            "at least 7, the pools' min_instances together",
        ),
        (
            GOOD.replace("address: local", "address: 10.77.0.11"),
            "hosts.here.address",
            "another address than hosts.worker1: its instances would count twice",
        ),
        (
            GOOD.replace("9100", "9000"),
            "pools.browser.metrics_port_base",
            "a block of ports without scaler.metrics_port 9098",
        ),
        (
            GOOD.replace("queues: [analysis]", "queues: [other, browser]"),
            "pools.analysis.queues",
            "a queue that pools.browser does not serve already",
        ),
        (
            GOOD.replace("queues: [analysis]", "queues: [twice, twice]"),
            "pools.analysis.queues",
            "a queue that pools.analysis does not serve already",
        ),
        (
            GOOD.replace("9200", "9150"),
            "pools.browser.metrics_port_base",
            "a port 100 or more away from that of analysis",
        ),
        (
            GOOD.replace("pools: [analysis]", "pools: [analyses]"),
            "hosts.here.pools",
            "one of browser, analysis",
        ),
        (
            GOOD.replace("10.77.0.11, max", "10.77.0.11, pools: [analysis], max"),
            "pools.browser",
            "browser in the pools of one of them, or a host without such a list",
        ),
        (
            GOOD.replace("10.77.0.11", "worker1").replace("local", "WORKER1."),
            "hosts.here.address",
            "another address than hosts.worker1: its instances would count twice",
        ),
    ],
)
def test_a_contradiction_between_right_values_is_an_error(
    tmp_path: Path, text: str, key: str, expected: str
) -> None:
    assert (key, expected) in [(key, wanted) for key, _, wanted in problems(tmp_path, text)]


def test_contradictions_are_reported_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("9200", "9101").replace("queues: [analysis]", "queues: [browser]")
    keys = [key for key, _, _ in problems(tmp_path, text)]
    assert keys == ["pools.analysis.queues", "pools.browser.metrics_port_base"]


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    [(_, value, _)] = problems(tmp_path, GOOD.replace("10.77.0.11", f"[{'x' * 500}]"))
    assert len(value) == 80
    assert value.endswith("...")


def test_a_password_in_a_url_is_not_repeated(tmp_path: Path) -> None:
    [(key, value, _)] = problems(tmp_path, GOOD + "flower: {url: 'http://u:s3cret@h:5555'}\n")
    assert key == "flower.url"
    assert "s3cret" not in value
    assert "h:5555" in value


def test_the_queue_of_a_type_that_no_pool_runs_is_an_error() -> None:
    settings = make_settings(pools={"browser": BROWSER})
    with pytest.raises(ConfigError, match="one with task_type analysis"):
        settings.queue_for("analysis")


def test_the_first_pool_of_a_type_takes_its_tasks() -> None:
    slow = {**ANALYSIS, "queues": ["slow"], "metrics_port_base": 9300}
    settings = make_settings(pools={"analysis": ANALYSIS, "slow": slow})
    assert settings.queue_for("analysis") == "analysis"


FALLBACK = {"broker": "fallback", "metrics_port_base": 9400}


def test_each_broker_has_pools_and_queues_of_its_own() -> None:
    pools = {"browser": BROWSER, "browser-fallback": {**BROWSER, **FALLBACK}, "analysis": ANALYSIS}
    settings = make_settings(pools=pools)
    assert settings.queues() == ("browser", "analysis")
    assert settings.queues(broker="fallback") == ("browser",)
    assert list(settings.pools_on("fallback")) == ["browser-fallback"]
    with pytest.raises(ConfigError, match="one with task_type analysis"):
        settings.queue_for("analysis", broker="fallback")


def test_a_type_of_task_without_a_pool_on_the_fallback_is_an_error(tmp_path: Path) -> None:
    only_browser = GOOD.replace(
        "hosts:",
        "  spare: {broker: fallback, task_type: browser, queues: [browser],"
        " metrics_port_base: 9300}\nhosts:",
    )
    assert problems(tmp_path, only_browser) == [
        ("pools", "spare", "a pool with broker fallback and task_type analysis too")
    ]


def test_the_primary_needs_a_pool(tmp_path: Path) -> None:
    swapped = GOOD.replace("task_type:", "broker: fallback, task_type:")
    assert problems(tmp_path, swapped) == [
        ("pools.*.broker", "fallback", "a pool with broker primary (the default)")
    ]


def test_a_queue_may_be_on_both_brokers_but_twice_on_none(tmp_path: Path) -> None:
    spare = "{{broker: {broker}, task_type: {type}, queues: [{type}], metrics_port_base: {port}}}"
    both = "".join(
        f"  spare-{kind}: {spare.format(broker='fallback', type=kind, port=port)}\n"
        for kind, port in (("browser", 9300), ("analysis", 9400))
    )
    assert load_settings(write(tmp_path, GOOD.replace("hosts:", f"{both}hosts:"))).pools
    twice = GOOD.replace("hosts:", f"{both.replace('fallback', 'primary')}hosts:")
    assert {where for where, _, _ in problems(tmp_path, twice)} == {
        "pools.spare-browser.queues",
        "pools.spare-analysis.queues",
    }


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        # Figures with which nothing can be reckoned.
        ("", "scaler: {target_wait_s: .inf}", "scaler.target_wait_s"),
        ("", "scaler: {target_wait_s: 86401}", "scaler.target_wait_s"),
        ("", "scaler: {stabilisation_s: .inf}", "scaler.stabilisation_s"),
        ("", "scaler: {stabilisation_s: .nan}", "scaler.stabilisation_s"),
        ("", "scaler: {survey_interval_s: .inf}", "scaler.survey_interval_s"),
        ("", "scaler: {interval_s: 0}", "scaler.interval_s"),
        ("min_instances: 1", "expected_service_time_s: 5.0e-324", "expected_service_time_s"),
        ("min_instances: 1", "expected_service_time_s: .inf", "expected_service_time_s"),
        ("min_instances: 1", "expected_boot_time_s: .inf", "expected_boot_time_s"),
        ("max_instances: 6", f"max_instances: 1{'0' * 400}", "max_instances"),
        ("min_instances: 1", f"spare: 1{'0' * 400}", "spare"),
        # Of another type.
        ("max_instances: 6", "max_instances: yes", "max_instances"),
        ("max_instances: 6", "max_instances: '6'", "max_instances"),
        ("max_instances: 6", "max_instances: 6.0", "max_instances"),
        ("max_instances: 6", "max_instances: null", "max_instances"),
        ("max_instances: 6", "max_instances: [6]", "max_instances"),
        ("queues: [browser]", "queues: browser", "queues"),
        ("queues: [browser]", "queues: [2024-12-24]", "queues.0"),
        # No host and no address.
        ("10.77.0.11", "a b", "hosts.worker1.address"),
        ("10.77.0.11", "root@worker1", "hosts.worker1.address"),
        ("10.77.0.11", '"a\\nb"', "hosts.worker1.address"),
        ("10.77.0.11", "x, user: ''", "hosts.worker1.user"),
        ("10.77.0.11", "x, port: 0", "hosts.worker1.port"),
        ("", "flower: {url: 'http://h:99999'}", "flower.url"),
        ("", "flower: {url: 'http://[::1'}", "flower.url"),
        ("", "flower: {url: 'h:5555'}", "flower.url"),
        ("", "scaler: {known_hosts: 3}", "scaler.known_hosts"),
        ("", "scaler: {colour: red}", "scaler.colour"),
        ("", "scaler:", "scaler"),
    ],
)
def test_a_value_that_cannot_be_is_named(tmp_path: Path, old: str, new: str, key: str) -> None:
    """And none of them is a traceback, now or in a turn of the scaler."""
    text = GOOD.replace(old, new, 1) if old else f"{GOOD}{new}\n"
    assert key.split(".", maxsplit=1)[0] in text or key in text
    [(found, _, expected)] = problems(tmp_path, text)
    assert found == key if "." in key and key[0] in "hfs" else found.endswith(key)
    assert expected


def test_settings_cannot_be_changed() -> None:
    settings = make_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.scaler.interval_s = 3.0  # type: ignore[misc]
    assert isinstance(settings, Settings)


@pytest.mark.parametrize(
    ("schedule", "where", "expected"),
    [
        ("{start: 0 7 * *, duration: 1h, spare: 1}", "start", "five fields as in crontab"),
        ("{start: 0 7 * * * *, duration: 1h, spare: 1}", "start", "five fields as in crontab"),
        ("{start: 0 25 * * *, duration: 1h, spare: 1}", "start", "(bad hour)"),
        ("{start: 0 0 */20 * 1L, duration: 1h, spare: 1}", "start", "a time that comes"),
        ("{start: 0 7 * * *, duration: 8 hours, spare: 1}", "duration", "a duration such as"),
        ("{start: 0 7 * * *, duration: 8d, spare: 1}", "duration", "at most 7 days"),
        ("{start: 0 7 * * *, duration: 8, spare: 1}", "duration", "to be a valid string"),
        (
            "{start: 0 7 * * *, duration: 1h, spare: 1, timezone: Mars/Crater}",
            "timezone",
            "a timezone such as Europe/Berlin",
        ),
        (
            "{start: 0 7 * * *, duration: 1h, spare: 1, timezone: ../x}",
            "timezone",
            "a timezone such as Europe/Berlin",
        ),
        ("{start: 0 7 * * *, duration: 1h}", "", "at least one of min_instances, max_instances"),
        (
            "{start: 0 7 * * *, duration: 1h, min_instances: 7}",
            "min_instances",
            "at most max_instances, which is 6 then",
        ),
        (
            "{start: 0 7 * * *, duration: 1h, min_instances: 2, max_instances: 0}",
            "min_instances",
            "at most max_instances, which is 0 then",
        ),
    ],
)
def test_a_schedule_that_means_nothing_is_refused(
    schedule: str, where: str, expected: str, tmp_path: Path
) -> None:
    text = GOOD.replace("max_instances: 6}", f"max_instances: 6, schedules: [{schedule}]}}")
    ((key, _, told),) = problems(tmp_path, text)
    assert key == ".".join(filter(None, ("pools.browser.schedules.0", where)))
    assert expected in told

"""The benchmarks run and count right; their figures are for `make bench-...`, not for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from bench.proxy import CountingProxy
from tests.integration.benchmarks import run_benchmark
from tests.integration.stage import REPOSITORY
from tests.loopback import PASSWORD, REDIS, RedisServer
from tests.programs import need

pytestmark = pytest.mark.timeout(300)


def connect(proxy: CountingProxy, party: str) -> Redis:
    return Redis(port=proxy.ports[party], password=PASSWORD, retry=Retry(NoBackoff(), 0))


def commands(proxy: CountingProxy, party: str) -> dict[str, int]:
    """Without those that a connection begins with."""
    counted = proxy.counts()[party]
    return {
        name: count
        for name, count in counted.items()
        if name not in {"AUTH", "HELLO"} and not name.startswith("CLIENT")
    }


def test_the_proxy_passes_everything_and_counts_it_by_party(redis_server: RedisServer) -> None:
    page = os.urandom(5_000_000)
    with (
        CountingProxy(redis_server.port, ["one", "other"]) as proxy,
        connect(proxy, "one") as one,
        connect(proxy, "other") as other,
    ):
        one.set("page", page)
        assert other.get("page") == page
        with one.pipeline(transaction=True) as pipeline:
            for number in range(1000):
                pipeline.set(f"key-{number}", number)
            assert pipeline.execute() == [True] * 1000
        assert commands(proxy, "one") == {"SET": 1001, "MULTI": 1, "EXEC": 1}
        assert commands(proxy, "other") == {"GET": 1}
        one.flushall()


def test_what_a_subscription_pushes_is_no_request(redis_server: RedisServer) -> None:
    with (
        CountingProxy(redis_server.port, ["hears", "tells"]) as proxy,
        connect(proxy, "hears") as hears,
        connect(proxy, "tells") as tells,
        hears.pubsub(ignore_subscribe_messages=True) as subscription,
    ):
        subscription.subscribe("news")
        subscription.get_message(timeout=5)
        for _ in range(10):
            tells.publish("news", "*1\r\n$4\r\nPING\r\n")
        heard = [subscription.get_message(timeout=5) for _ in range(10)]
        assert all(heard)
        assert commands(proxy, "hears") == {"SUBSCRIBE": 1}
        assert commands(proxy, "tells") == {"PUBLISH": 10}


def test_who_loses_redis_loses_the_connection_to_the_proxy(tmp_path: Path) -> None:
    need(REDIS, "redis-tools")
    with (
        RedisServer(tmp_path) as server,
        CountingProxy(server.port, ["client"]) as proxy,
        connect(proxy, "client") as client,
    ):
        assert client.ping()
        server.stop()
        with pytest.raises(RedisConnectionError):
            client.execute_command("PING")


def test_bench_commands_counts_at_rest_and_for_tasks() -> None:
    figures = run_benchmark("bench.commands", "--quick")
    assert figures["idle_per_hour"] >= 0
    assert figures["idle_per_hour_each_more"] >= 0
    # Stock asks for work every second; LPUSH, BRPOP, three transactions, and the result's way.
    assert figures["stock_idle_per_hour"] > 3000
    assert 15 <= figures["stock_per_task"] <= 20
    # Publishing, taking and committing are one request each at the least.
    assert 3 <= figures["per_task"] < figures["one_shot_per_task"]
    # received, started, succeeded
    assert figures["events_on_per_task"] - figures["per_task"] == pytest.approx(3, abs=0.5)
    assert figures["long_task"] >= 3
    assert figures["inside_scripts_per_task"] >= 0


def test_bench_dispatch_times_both_sides() -> None:
    figures = run_benchmark("bench.dispatch", "--quick")
    for side in ("", "stock_"):
        assert figures[f"{side}tasks_per_s"] > 0
        assert 0 < figures[f"{side}p50_ms"] <= figures[f"{side}p99_ms"]
        assert figures[f"{side}after_idle_ms"] > 0
        assert figures[f"{side}stop_idle_s"] > 0


def test_stock_is_stock() -> None:
    """Importing swarm would put its transport in the place of kombu's."""
    code = "import sys, bench.producer, bench.stock; print('swarm' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"

"""Results of tasks on two brokers, found by nothing but the task's id."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from celery import group
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, GroupResult, ResultSet
from redis.exceptions import RedisError

from swarm.client import Client
from swarm.delivery import ids
from swarm.errors import ConfigError
from tests.contract.failover.conftest import TwoBrokers
from tests.loopback import PASSWORD


def submit(app: Any, **options: Any) -> str:
    return str(app.send_task("analysis.run", args=[{}], **options).id)


def test_another_process_finds_the_result_by_the_id_alone(two: TwoBrokers) -> None:
    producer = two.app()
    on_primary = submit(producer)
    two.service.reach("refused")
    on_fallback = submit(producer)
    two.service.heal()
    two.commit("primary", on_primary, "from the primary")
    two.commit("fallback", on_fallback, "from the fallback")
    for app in (producer, two.app()):
        for task_id, value in (
            (on_primary, "from the primary"),
            (on_fallback, "from the fallback"),
        ):
            result: AsyncResult[str] = AsyncResult(task_id, app=app)
            assert result.state == "SUCCESS"
            assert result.result == value
            assert AsyncResult(task_id, app=app).get(timeout=5) == value


def test_what_the_fallback_has_needs_no_primary(two: TwoBrokers) -> None:
    producer = two.app()
    two.service.reach("silent")
    task_id = submit(producer)
    reader = two.app()
    result: AsyncResult[int] = AsyncResult(task_id, app=reader)
    begun = time.monotonic()
    assert result.state == "PENDING"
    two.commit("fallback", task_id, 7)
    assert result.get(timeout=5) == 7
    assert time.monotonic() - begun < 1


def test_a_result_that_comes_later_ends_the_wait(two: TwoBrokers) -> None:
    app = two.app()
    on_primary = submit(app)
    two.service.reach("refused")
    on_fallback = submit(app)
    two.service.heal()
    for name, task_id in (("primary", on_primary), ("fallback", on_fallback)):
        later = threading.Timer(0.5, two.commit, (name, task_id, name))
        later.start()
        assert AsyncResult(task_id, app=two.app()).get(timeout=10) == name
        later.join()


def test_an_id_of_somebodys_own_is_looked_for_on_both(two: TwoBrokers) -> None:
    producer = two.app()
    two.service.reach("refused")
    submit(producer, task_id="order-7")
    two.service.heal()
    reader = two.app()
    result: AsyncResult[str] = AsyncResult("order-7", app=reader)
    assert result.state == "PENDING"
    with pytest.raises(CeleryTimeoutError):
        result.get(timeout=0.5)
    later = threading.Timer(0.5, two.commit, ("fallback", "order-7", "done"))
    later.start()
    assert AsyncResult("order-7", app=reader).get(timeout=20) == "done"
    later.join()


def test_an_outage_of_its_broker_is_waited_for(two: TwoBrokers) -> None:
    app = two.app()
    task_id = submit(app)
    two.service.reach("refused")

    def heal() -> None:
        two.commit("primary", task_id, "in the end")
        two.service.heal()

    later = threading.Timer(1.0, heal)
    later.start()
    assert AsyncResult(task_id, app=app).get(timeout=40) == "in the end"
    later.join()


def test_an_outage_that_lasts_is_an_error_and_no_timeout(two: TwoBrokers) -> None:
    app = two.app()
    task_id = submit(app)
    two.service.reach("refused")
    result: AsyncResult[str] = AsyncResult(task_id, app=app)
    with pytest.raises(RedisError):
        _ = result.state
    begun = time.monotonic()
    with pytest.raises(RedisError):
        result.get(timeout=1)
    with pytest.raises(RedisError):
        result.get()
    assert time.monotonic() - begun < 3


def test_a_fallback_that_is_away_does_not_matter_to_the_primarys_tasks(two: TwoBrokers) -> None:
    app = two.app()
    task_id = submit(app)
    two.beside.stop()
    try:
        assert AsyncResult(task_id, app=two.app()).state == "PENDING"
        two.commit("primary", task_id, 1)
        assert AsyncResult(task_id, app=two.app()).get(timeout=5) == 1
    finally:
        two.beside.start()


def test_the_error_of_a_task_is_no_error_of_a_broker(two: TwoBrokers) -> None:
    app = two.app()
    task_id = submit(app)
    two.commit("primary", task_id, ConnectionError("of the task"), "FAILURE")
    with pytest.raises(ConnectionError, match="of the task"):
        AsyncResult(task_id, app=app).get(timeout=5)
    assert ids.broker_of(submit(app)) == "primary"


def test_a_set_of_results_may_be_on_both(two: TwoBrokers) -> None:
    app = two.app()
    first = [submit(app) for _ in range(2)]
    two.service.reach("refused")
    second = [submit(app) for _ in range(2)]
    two.service.heal()
    for at, task_id in enumerate(first):
        two.commit("primary", task_id, at)
    for at, task_id in enumerate(second):
        two.commit("fallback", task_id, 10 + at)
    reader = two.app()

    def results(task_ids: list[str]) -> ResultSet[Any]:
        return ResultSet([AsyncResult(each, app=reader) for each in task_ids], app=reader)

    assert results(first).join_native(timeout=5) == [0, 1]
    assert results(second).get(timeout=5) == [10, 11]
    assert results([*first, *second]).get(timeout=5) == [0, 1, 10, 11]
    assert results([*second, *first]).join(timeout=5) == [10, 11, 0, 1]


def test_a_set_that_the_primary_did_not_take_is_found_by_another_process(two: TwoBrokers) -> None:
    """The ids of its parts were ready, and name the primary."""
    app = two.app()
    submit(app)
    two.service.reach_limit()
    parts = group(app.signature("analysis.run", args=[{}], immutable=True) for _ in range(2))
    sent = parts.apply_async()
    task_ids = [each.id for each in sent.results]
    assert {ids.broker_of(each) for each in task_ids} == {"primary"}
    two.service.heal()
    for at, task_id in enumerate(task_ids):
        two.commit("fallback", task_id, at)
    reader = two.app()
    results = [AsyncResult[int](each, app=reader) for each in task_ids]
    assert GroupResult(sent.id, results, app=reader).get(timeout=5) == [0, 1]


def test_who_reads_with_a_wrong_password_is_told_the_variable(two: TwoBrokers) -> None:
    url = two.brokers.primary.url.replace(PASSWORD, "wrong")
    wrong = replace(two.brokers, primary=replace(two.brokers.primary, url=url))
    client = Client(replace(two, brokers=wrong).app())
    for ask in (client.result, client.revoke):
        with pytest.raises(ConfigError, match=r"^REDIS_URL: got rediss://.*WRONGPASS"):
            ask(ids.new_id("primary"))

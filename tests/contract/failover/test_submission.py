"""Submitting to two brokers: soon, to the one that takes it, with an id that tells which."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar
from uuid import UUID

import pytest
from kombu.exceptions import OperationalError

from swarm.brokers import Brokers, parse_broker
from swarm.delivery import ids
from swarm.delivery.app import DeliveryCelery
from swarm.delivery.publish import RefusedError, UncertainError
from swarm.errors import ConfigError
from tests.contract.failover.conftest import STRIKES, TwoBrokers
from tests.loopback import wait_until

#: What a producer is promised.
PATIENCE_S = 3.0

T = TypeVar("T")


def submit(app: Any, **options: Any) -> str:
    return str(app.send_task("analysis.run", args=[{}], **options).id)


def timed(app: Any, **options: Any) -> tuple[str, float]:
    begun = time.monotonic()
    return submit(app, **options), time.monotonic() - begun


def in_threads(count: int, work: Callable[[], T]) -> list[T]:
    """What those threads return that come to an end."""
    done: list[T] = []
    threads = [
        threading.Thread(target=lambda: done.append(work()), daemon=True) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    for thread in threads:
        thread.join(timeout=max(0.0, deadline - time.monotonic()))
    return done


def each_with_its_own_producer(app: DeliveryCelery) -> list[str]:
    """Submit by all producers that a process may have, at once."""
    count = app.conf.broker_pool_limit
    all_hold_one = threading.Barrier(count, timeout=10)

    def publish() -> str:
        with app.producer_or_acquire() as producer:
            all_hold_one.wait()
            return submit(app, producer=producer)

    submitted = in_threads(count, publish)
    assert len(submitted) == count
    return submitted


def test_while_the_primary_is_well_it_has_every_task(two: TwoBrokers) -> None:
    app = two.app()
    submitted = [submit(app) for _ in range(3)]
    assert two.waiting("primary") == submitted
    assert two.waiting("fallback") == []
    assert {UUID(each).version for each in submitted} == {4}


@pytest.mark.parametrize("strike", STRIKES)
@pytest.mark.parametrize("tasks_before", [1, 0])
def test_a_producer_blocks_once_and_every_task_is_somewhere(
    two: TwoBrokers, strike: str, tasks_before: int
) -> None:
    app = two.app()
    before = [submit(app) for _ in range(tasks_before)]
    STRIKES[strike](two.service)
    first, first_s = timed(app)
    assert first_s <= PATIENCE_S
    begun = time.monotonic()
    later = [submit(app) for _ in range(20)]
    assert time.monotonic() - begun <= 1.0
    assert two.waiting("fallback") == [first, *later]
    # Those whose publication was cut off may be there too, by their other id.
    assert set(two.waiting("primary")) - {ids.named(first, "primary")} == set(before)
    assert {ids.broker_of(each) for each in (first, *later)} == {"fallback"}


def test_replies_that_are_each_in_time_do_not_add_up(two: TwoBrokers) -> None:
    """To enter takes several, and so does a script that the server does not know yet."""
    two.service.set(slow_s=0.9)
    _, seconds = timed(two.app())
    assert seconds <= PATIENCE_S


def test_addresses_that_do_not_answer_do_not_add_up(
    two: TwoBrokers, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, ExitStack() as callers:
        port = silent.getsockname()[1]
        # Nobody accepts these; when the queue is full nobody else has an answer.
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.settimeout(0)
            caller.connect_ex(("127.0.0.1", port))
        resolve = socket.getaddrinfo

        def resolve_to_many(host: Any, asked: Any, *args: Any, **options: Any) -> Any:
            found = resolve(host, asked, *args, **options)
            return 4 * found if asked == port else found

        monkeypatch.setattr(socket, "getaddrinfo", resolve_to_many)
        url = two.brokers.primary.url.replace(f":{two.service.port}", f":{port}")
        primary = parse_broker("primary", url, variable="REDIS_URL")
        two.brokers = Brokers(primary, two.brokers.fallback)
        task_id, seconds = timed(two.app())
    assert ids.broker_of(task_id) == "fallback"
    assert 1 <= seconds <= PATIENCE_S


def test_the_primary_has_the_tasks_again_once_it_is_well_for_some_time(two: TwoBrokers) -> None:
    app = two.app()
    two.service.reach("refused")
    assert ids.broker_of(submit(app)) == "fallback"
    two.service.heal()
    # Ten seconds at the least, and trials in between; nobody's task is one.
    assert ids.broker_of(submit(app)) == "fallback"
    begun = time.monotonic()
    wait_until(lambda: ids.broker_of(submit(app)) == "primary", timeout_s=40, what="the return")
    assert time.monotonic() - begun >= 9
    assert {ids.broker_of(submit(app)) for _ in range(5)} == {"primary"}


def test_a_task_that_is_refused_keeps_its_id_but_for_the_digit_that_names_the_broker(
    two: TwoBrokers,
) -> None:
    app = two.app()
    two.service.reach_limit()
    own = submit(app, task_id="order-7")
    assert own == "order-7"
    assert two.waiting("fallback") == ["order-7"]


def test_an_uncertain_task_is_on_both_brokers_by_ids_that_show_it(two: TwoBrokers) -> None:
    app = two.app()
    submit(app)
    two.service.set(slow_s=5)
    second = submit(app)
    wait_until(lambda: len(two.waiting("primary")) == 2, what="the late one")
    assert two.waiting("primary")[1] == ids.named(second, "primary")
    assert two.waiting("fallback") == [second]


def test_an_uncertain_task_is_held_where_that_is_chosen(two: TwoBrokers) -> None:
    app = two.app(on_uncertain="hold")
    submit(app)
    two.service.set(slow_s=5)
    with pytest.raises(UncertainError) as caught:
        submit(app)
    wait_until(lambda: caught.value.task_id in two.waiting("primary"), what="the late one")
    assert two.waiting("fallback") == []
    # What is refused for certain is no question.
    assert ids.broker_of(submit(app)) == "fallback"


def test_a_reply_that_is_cut_off_is_asked_for_again(two: TwoBrokers) -> None:
    app = two.app()
    submit(app)
    two.service.set(cuts=1)
    assert ids.broker_of(submit(app)) == "primary"
    assert len(two.waiting("primary")) == 2
    assert two.waiting("fallback") == []


def test_when_nobody_takes_it_both_say_why(two: TwoBrokers) -> None:
    app = two.app()
    two.service.reach_limit()
    with two.redis("fallback") as redis:
        redis.config_set("maxmemory", 1)
    with pytest.raises(RefusedError, match=r"primary: max requests limit.*; fallback: .*memory"):
        submit(app)
    with two.redis("fallback") as redis:
        redis.config_set("maxmemory", 0)
    assert ids.broker_of(submit(app)) == "fallback"


def test_with_one_broker_its_absence_is_an_error_and_its_return_is_not_waited_for(
    two: TwoBrokers,
) -> None:
    two.brokers = Brokers(two.brokers.primary)
    app = two.app()
    two.service.reach("refused")
    for _ in range(3):
        with pytest.raises(RefusedError, match="Connection refused"):
            submit(app)
    two.service.heal()
    task_id = submit(app)
    assert two.waiting("primary") == [task_id]


def test_an_idempotency_key_gives_the_first_task_and_nothing_more(two: TwoBrokers) -> None:
    app = two.app()
    two.service.reach("refused")
    headers = {"idempotency_key": "once"}
    first = submit(app, headers=headers)
    assert submit(app, headers=headers) == first
    assert two.waiting("fallback") == [first]


def test_an_answer_that_is_an_error_leaves_the_connection_open(two: TwoBrokers) -> None:
    """A broker that counts requests is entered once, not after each of these."""
    two.brokers = Brokers(two.brokers.primary)
    app = two.app()
    headers = {"idempotency_key": "once"}
    submit(app, headers=headers)
    entered = two.service.counts["AUTH"]
    for _ in range(3):
        submit(app, headers=headers)
    with two.redis("primary") as redis:
        redis.config_set("maxmemory", 1)
    for _ in range(3):
        with pytest.raises(RefusedError, match="memory is full"):
            submit(app)
    assert two.service.counts["AUTH"] == entered


def test_a_broker_that_is_no_primary_any_more_is_looked_for_anew(two: TwoBrokers) -> None:
    two.brokers = Brokers(two.brokers.primary)
    app = two.app()
    submit(app)
    entered = two.service.counts["AUTH"]
    with two.redis("primary") as redis:
        redis.replicaof("127.0.0.1", 1)
        with pytest.raises(RefusedError, match=r"(?i)read ?only"):
            submit(app)
        redis.replicaof("NO", "ONE")
    submit(app)
    assert two.service.counts["AUTH"] > entered


def test_a_connection_of_somebodys_own_is_used_as_it_is(two: TwoBrokers) -> None:
    app = two.app()
    two.service.reach("refused")
    with app.connection_for_write() as connection, pytest.raises(OperationalError):
        submit(app, connection=connection)
    assert two.waiting("fallback") == []


def test_a_producer_that_is_acquired_once_goes_over_too(two: TwoBrokers) -> None:
    app = two.app()
    with app.producer_or_acquire() as producer:
        assert ids.broker_of(submit(app, producer=producer)) == "primary"
        two.service.reach("refused")
        assert ids.broker_of(submit(app, producer=producer)) == "fallback"


def test_as_many_threads_as_there_are_producers_may_hold_one_each(two: TwoBrokers) -> None:
    submitted = each_with_its_own_producer(two.app())
    assert sorted(two.waiting("primary")) == sorted(submitted)


def test_no_thread_blocks_longer_because_others_have_all_the_producers(two: TwoBrokers) -> None:
    app = two.app()
    submit(app)
    two.service.set(slow_s=5)
    submitted = in_threads(3 * app.conf.broker_pool_limit, lambda: timed(app))
    assert len(submitted) == 3 * app.conf.broker_pool_limit
    assert max(seconds for _, seconds in submitted) <= PATIENCE_S + 1
    assert {ids.broker_of(task_id) for task_id, _ in submitted} == {"fallback"}


def test_a_wait_for_a_producer_does_not_make_the_broker_a_slow_one(two: TwoBrokers) -> None:
    app = two.app()
    each_with_its_own_producer(app)
    two.service.set(slow_s=0.4)
    submitted = in_threads(6 * app.conf.broker_pool_limit, lambda: submit(app))
    assert len(submitted) == 6 * app.conf.broker_pool_limit
    assert {ids.broker_of(task_id) for task_id in submitted} == {"primary"}


@pytest.mark.parametrize("wrong", ["password", "certificate"])
def test_who_is_not_let_in_is_told_which_variable_is_wrong(two: TwoBrokers, wrong: str) -> None:
    url = two.brokers.primary.url
    wrong_ones = {
        "password": url.replace(":s3cret@", ":wrong@"),
        "certificate": url.partition("?")[0],
    }
    url = wrong_ones[wrong]
    primary = parse_broker("primary", url, variable="REDIS_URL")
    two.brokers = Brokers(primary, two.brokers.fallback)
    app = two.app()
    for _ in range(2):
        # No failover, which would only hide it.
        with pytest.raises(ConfigError, match=r"^REDIS_URL: got rediss://127") as caught:
            submit(app)
        assert "s3cret" not in str(caught.value)
    assert two.waiting("fallback") == []


def test_a_fallback_that_refuses_us_does_not_hide_that_the_primary_broke_off(
    two: TwoBrokers,
) -> None:
    url = two.beside.url.replace(":s3cret@", ":wrong@")
    fallback = parse_broker("fallback", url, variable="REDIS_FALLBACK_URL")
    two.brokers = Brokers(two.brokers.primary, fallback)
    app = two.app()
    submit(app)
    two.service.set(slow_s=5)
    with pytest.raises(UncertainError, match=r"fallback: REDIS_FALLBACK_URL: got ") as caught:
        submit(app)
    wait_until(lambda: caught.value.task_id in two.waiting("primary"), what="the late one")
    # What the primary refuses for certain leaves but one thing to put right.
    with pytest.raises(ConfigError, match=r"^REDIS_FALLBACK_URL: got "):
        submit(app)

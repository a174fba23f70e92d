"""What Celery promises, over our transport and our commit, on workers of each kind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from celery import chain, chord, group
from celery.result import AsyncResult

from swarm.delivery import keys
from tests.integration.delivery_stage import DeliveryStage
from tests.integration.stage import Stage
from tests.loopback import wait_until


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def delivery(shared: Stage, request: pytest.FixtureRequest) -> Iterator[DeliveryStage]:
    """One worker for all tests that do not harm it."""
    delivery = DeliveryStage(shared)
    worker = delivery.worker(CELERY_POOL=request.param, CELERY_LOGLEVEL="info")
    yield delivery
    worker.process.terminate()
    assert worker.wait_exit() == 0
    delivery.app.close()


@pytest.fixture(autouse=True)
def _nothing_stays_held(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "delivery" in request.fixturenames:
        delivery: DeliveryStage = request.getfixturevalue("delivery")
        delivery.wait_idle()


# -- canvas


def test_a_result_comes_back(delivery: DeliveryStage) -> None:
    assert delivery.send("add", 2, 3).get(timeout=10) == 5


def test_a_result_may_be_ignored(delivery: DeliveryStage) -> None:
    word = f"silent {time.time()}"
    result = delivery.send("silent", word)
    wait_until(lambda: word in delivery.runs(), what="the run")
    delivery.wait_idle()
    assert result.state == "PENDING"


def test_a_failure_comes_back(delivery: DeliveryStage) -> None:
    result = delivery.send("fail")
    with pytest.raises(ValueError, match="as told"):
        result.get(timeout=10)


def test_a_chain_hands_results_on(delivery: DeliveryStage) -> None:
    result = chain(
        delivery.task("add", 1, 2), delivery.task("add", 3), delivery.task("add", 4)
    ).apply_async()
    assert result.get(timeout=10) == 10


def test_a_chain_ends_with_its_first_failure(delivery: DeliveryStage) -> None:
    before = len(delivery.runs())
    result = chain(
        delivery.task("add", 1, 2), delivery.task("fail"), delivery.task("add", 4)
    ).apply_async()
    with pytest.raises(ValueError, match="as told"):
        result.get(timeout=10)
    delivery.wait_idle()
    assert delivery.runs()[before:] == ["add 1 2", "fail"]


def test_a_group_gives_every_result(delivery: DeliveryStage) -> None:
    result = group(delivery.task("add", n, n) for n in range(8)).apply_async()
    assert result.get(timeout=20) == [2 * n for n in range(8)]


def test_a_chord_is_completed_once(delivery: DeliveryStage) -> None:
    before = delivery.runs().count("total")
    result = chord([delivery.task("add", n, 1) for n in range(8)])(delivery.task("total"))
    assert result.get(timeout=20) == sum(range(1, 9))
    delivery.wait_idle()
    assert delivery.runs().count("total") == before + 1


def test_a_chord_of_one_is_completed(delivery: DeliveryStage) -> None:
    assert chord([delivery.task("add", 1, 1)])(delivery.task("total")).get(timeout=20) == 2


def test_a_chord_fails_with_a_part_of_it(delivery: DeliveryStage) -> None:
    before = delivery.runs().count("total")
    result = chord([delivery.task("add", 1, 1), delivery.task("fail")])(delivery.task("total"))
    with pytest.raises(Exception, match="as told"):
        result.get(timeout=20)
    delivery.wait_idle()
    assert delivery.runs().count("total") == before


def test_a_chord_in_a_chain_hands_on(delivery: DeliveryStage) -> None:
    result = chain(
        group(delivery.task("add", n, 0) for n in (1, 2, 3)),
        delivery.task("total"),
        delivery.task("add", 10),
    ).apply_async()
    assert result.get(timeout=20) == 16


def test_nested_chords_are_completed(delivery: DeliveryStage) -> None:
    inner = chain(group(delivery.task("add", n, 0) for n in (1, 2)), delivery.task("total"))
    result = chord([inner, delivery.task("add", 10, 0)])(delivery.task("total"))
    assert result.get(timeout=20) == 13


def test_a_link_is_called_with_the_result(delivery: DeliveryStage) -> None:
    word = f"link {time.time()}"
    delivery.send("note", word, link=delivery.task("note"))
    wait_until(lambda: delivery.runs().count(word) == 2, what="the link")


def test_an_errback_is_called_when_it_fails(delivery: DeliveryStage) -> None:
    result = delivery.send("fail", link_error=delivery.task("told"))
    wait_until(lambda: result.id in delivery.runs(), what="the errback")


def test_a_body_publishes_at_once(delivery: DeliveryStage) -> None:
    before = delivery.runs().count("spawned")
    child = delivery.send("spawn").get(timeout=10)
    wait_until(lambda: delivery.runs().count("spawned") == before + 1, what="the child")
    assert AsyncResult(child, app=delivery.app).get(timeout=10) == "spawned"


def test_a_replacement_answers_for_the_task(delivery: DeliveryStage) -> None:
    assert delivery.send("replace").get(timeout=10) == 42


def test_a_result_that_cannot_be_encoded_is_a_failure(delivery: DeliveryStage) -> None:
    result = delivery.send("huge", link=delivery.task("note", "never", immutable=True))
    with pytest.raises(Exception, match=r"JSON|serializ"):
        result.get(timeout=10)
    delivery.wait_idle()
    assert "never" not in delivery.runs()


def test_a_lack_of_memory_fails_the_task_and_not_its_worker(delivery: DeliveryStage) -> None:
    before = delivery.runs().count("exhaust")
    result = delivery.send("exhaust", link_error=delivery.task("told"))
    with pytest.raises(MemoryError, match="too large"):
        result.get(timeout=10)
    assert delivery.send("add", 1, 1).get(timeout=10) == 2
    wait_until(lambda: result.id in delivery.runs(), what="the errback")
    assert delivery.runs().count("exhaust") == before + 1
    assert delivery.runs().count(result.id) == 1


# -- retries, ETA, refusals


def test_retries_count_and_end(delivery: DeliveryStage) -> None:
    assert delivery.send("flaky", 2, 0.2).get(timeout=15) == "after 2"


def test_retries_give_up(delivery: DeliveryStage) -> None:
    before = len(delivery.runs())
    with pytest.raises(ValueError, match="not yet"):
        delivery.send("flaky", 9, 0.0).get(timeout=15)
    assert delivery.runs()[before:] == [f"flaky {retries}" for retries in range(6)]


def test_a_countdown_is_kept_and_holds_nothing(delivery: DeliveryStage) -> None:
    started_at = time.monotonic()
    result = delivery.send("note", f"later {started_at}", countdown=1.5)
    time.sleep(0.5)
    assert (delivery.scheduled(), delivery.held()) == (1, 0)
    result.get(timeout=10)
    assert 1.4 <= time.monotonic() - started_at < 2.5


def test_many_scheduled_tasks_hold_nobody_up(delivery: DeliveryStage) -> None:
    later = [delivery.send("note", f"eta {n}", countdown=6) for n in range(30)]
    assert delivery.send("add", 1, 1).get(timeout=5) == 2
    for result in later:
        result.get(timeout=15)


def test_an_eta_in_the_past_is_now(delivery: DeliveryStage) -> None:
    eta = datetime.now(UTC) - timedelta(minutes=1)
    assert delivery.send("add", 1, 1, eta=eta).get(timeout=10) == 2


def test_an_expired_task_is_revoked(delivery: DeliveryStage) -> None:
    result = delivery.send("note", "expired", expires=datetime.now(UTC) - timedelta(seconds=5))
    wait_until(lambda: result.state == "REVOKED", what="its end")
    assert "expired" not in delivery.runs()


def test_a_revoked_task_is_not_started(delivery: DeliveryStage) -> None:
    result = delivery.send("note", "revoked", countdown=1)
    delivery.app.control.revoke(result.id)
    wait_until(lambda: result.state == "REVOKED", what="its end")
    assert "revoked" not in delivery.runs()


def test_an_ignored_task_ends(delivery: DeliveryStage) -> None:
    before = delivery.runs().count("ignore")
    delivery.send("ignore")
    wait_until(lambda: delivery.runs().count("ignore") == before + 1, what="its run")


def test_a_rejected_task_comes_again(delivery: DeliveryStage) -> None:
    word = f"reject {time.time()}"
    assert delivery.send("reject", word).get(timeout=10) is True
    assert delivery.runs().count(word) == 2


def test_a_more_urgent_task_is_done_first(delivery: DeliveryStage) -> None:
    blocker = delivery.send("note", f"blocker {time.time()}", 1.0)
    wait_until(lambda: delivery.held() == 1, what="the blocker")
    late = delivery.send("note", f"low {time.time()}", priority=9)
    soon = delivery.send("note", f"high {time.time()}", priority=0)
    for result in (blocker, late, soon):
        result.get(timeout=10)
    order = [run.split()[0] for run in delivery.runs()[-3:]]
    assert order == ["blocker", "high", "low"]


# -- what workers cannot do


def test_an_unknown_task_becomes_a_dead_letter(delivery: DeliveryStage) -> None:
    result = delivery.send("of_tomorrow", 1, queue="analysis")
    with pytest.raises(Exception, match="no such task here"):
        result.get(timeout=10)
    listed = delivery.stage.swarm("dead", "list")
    assert result.id in listed.stdout
    assert "analysis.of_tomorrow" in listed.stdout
    shown = json.loads(delivery.stage.swarm("dead", "show", result.id).stdout)
    assert shown["arguments"][0] == [1]
    assert delivery.stage.swarm("dead", "drop", result.id).returncode == 0
    assert delivery.stage.swarm("dead", "list").stdout == ""


@pytest.mark.parametrize("text", ["no JSON", '{"headers": {"id": 1}}', "[]"])
def test_what_is_no_message_becomes_a_dead_letter(delivery: DeliveryStage, text: str) -> None:
    with delivery.stage.redis.connect() as redis:
        redis.lpush("analysis", text)
        redis.lpush(keys.bell("analysis"), "1")
        wait_until(lambda: redis.hlen(keys.DEAD) == 1, what="the dead letter")
        redis.delete(keys.DEAD)
    assert delivery.send("add", 1, 1).get(timeout=10) == 2


def test_a_pickle_is_a_dead_letter(delivery: DeliveryStage) -> None:
    delivery.app.conf.accept_content = ["json", "pickle"]
    result = delivery.send("add", 1, 1, serializer="pickle")
    with pytest.raises(Exception, match=r"invalid|decoded|disabled"):
        result.get(timeout=10)
    assert delivery.stage.swarm("dead", "drop", result.id).returncode == 0

"""Chains, groups and chords go to one broker: the one that accepts their first part."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import Celery, chain, chord, group
from celery.result import AsyncResult, GroupResult

from swarm.delivery import ids
from swarm.delivery.publish import RefusedError
from tests.contract.failover.conftest import STRIKES, TwoBrokers


def part(app: Any) -> Any:
    return app.signature("analysis.run", args=[{}], immutable=True)


def workflows(app: Any) -> dict[str, Any]:
    return {
        "chain": chain(part(app), part(app), part(app)),
        "group": group(part(app), part(app)),
        "chord": chord([part(app), part(app)], part(app)),
        "chain of groups": chain(group(part(app), part(app)), group(part(app), part(app))),
        "group of chains": group(chain(part(app), part(app)), part(app)),
        "saved chord": chord([group(part(app), part(app)), part(app)], part(app)),
    }


NAMES = list(workflows(Celery("none", set_as_current=False)))


def all_ids(result: Any) -> set[str]:
    found = set()
    while result is not None:
        found.add(result.id)
        for each in getattr(result, "results", None) or ():
            found |= all_ids(each)
        result = result.parent
    return found


def keys_of(two: TwoBrokers, name: Any) -> set[bytes]:
    with two.redis(name) as redis:
        return {
            key
            for key in redis.keys("*")
            if not key.startswith((b"swarm:sent:", b"swarm:bell:", b"_kombu"))
        }


@pytest.mark.parametrize("name", NAMES)
def test_with_the_primary_it_is_all_there(two: TwoBrokers, name: str) -> None:
    app = two.app()
    result = workflows(app)[name].apply_async()
    assert {ids.broker_of(each) for each in all_ids(result)} == {"primary"}
    assert keys_of(two, "fallback") == set()


def test_replies_to_a_chord_that_are_each_in_time_do_not_add_up(two: TwoBrokers) -> None:
    """Its first request goes to the result backend, which is entered for it."""
    two.service.set(slow_s=1.4)
    begun = time.monotonic()
    result = workflows(two.app())["saved chord"].apply_async()
    assert time.monotonic() - begun <= 3
    assert set(two.waiting("fallback")) <= all_ids(result)


def test_a_group_goes_by_the_connection_that_is_there(two: TwoBrokers) -> None:
    app = two.app()
    app.send_task("analysis.run", args=[{}])
    entered = two.service.counts["AUTH"]
    group(part(app), part(app)).apply_async()
    assert two.service.counts["AUTH"] == entered


@pytest.mark.parametrize("name", NAMES)
def test_while_the_primary_is_avoided_all_of_it_is_on_the_fallback_and_its_ids_say_so(
    two: TwoBrokers, name: str
) -> None:
    app = two.app()
    two.service.reach("refused")
    app.send_task("analysis.run", args=[{}])
    two.service.heal()
    result = workflows(app)[name].apply_async()
    assert {ids.broker_of(each) for each in all_ids(result)} == {"fallback"}
    assert keys_of(two, "primary") == set()


# Certain, and uncertain.
@pytest.mark.parametrize("strike", ["limited", "slow", "cut"])
@pytest.mark.parametrize("name", NAMES)
def test_one_that_the_primary_does_not_take_is_on_the_fallback_as_a_whole(
    two: TwoBrokers, strike: str, name: str
) -> None:
    app = two.app()
    app.send_task("analysis.run", args=[{}])
    STRIKES[strike](two.service)
    begun = time.monotonic()
    result = workflows(app)[name].apply_async()
    assert time.monotonic() - begun <= 3
    own = all_ids(result)
    assert set(two.waiting("fallback")) <= own
    # At most its root, of which nobody knew, has come to the primary as well.
    assert len(own.intersection(two.waiting("primary"))) <= 1
    # Their ids were ready and cannot say it any more: this process knows, another one asks both.
    for each in own:
        two.commit("fallback", each, "done")
    two.service.heal()
    tasks = [each for each in _tasks(result) if each.id]
    assert tasks
    for task in tasks:
        assert AsyncResult(task.id, app=app).get(timeout=5) == "done"
        assert AsyncResult(task.id, app=two.app()).state == "SUCCESS"


def _tasks(result: Any) -> list[Any]:
    parts = getattr(result, "results", None)
    return [task for part in parts for task in _tasks(part)] if parts else [result]


@pytest.mark.parametrize("strike", ["refused", "limited", "slow", "cut"])
def test_a_chord_that_is_broken_off_in_the_middle_is_given_up_in_time(
    two: TwoBrokers, strike: str
) -> None:
    """How many parts it has is stored before the last one: Celery would try that for 20 s."""
    app = two.app()
    original = app.publish_task

    def publish(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        STRIKES[strike](two.service)
        return result

    app.publish_task = publish  # type: ignore[method-assign]
    begun = time.monotonic()
    with pytest.raises(RefusedError):
        chord([part(app), part(app)], part(app)).apply_async()
    assert time.monotonic() - begun <= 3


def test_nothing_follows_on_another_broker(two: TwoBrokers) -> None:
    app = two.app()
    original, sent = app.publish_task, []

    def publish(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        sent.append(result.id)
        two.service.reach_limit()
        return result

    app.publish_task = publish  # type: ignore[method-assign]
    with pytest.raises(RefusedError, match="max requests limit"):
        group(part(app), part(app)).apply_async()
    assert two.waiting("primary") == sent
    assert two.waiting("fallback") == []


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")
def test_a_group_that_was_saved_is_found_on_either(two: TwoBrokers) -> None:
    app = two.app()
    two.service.reach("refused")
    result = group(part(app), part(app)).apply_async()
    result.save()
    two.service.heal()
    restored = GroupResult.restore(result.id, app=two.app())
    assert restored is not None
    assert [each.id for each in restored.results] == [each.id for each in result.results]
    result.delete()
    assert GroupResult.restore(result.id, app=two.app()) is None

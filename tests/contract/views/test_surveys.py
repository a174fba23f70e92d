"""What the scaler may rely on of its view of the broker: in memory, and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import redis

from swarm.delivery.survey import Attention
from swarm.scaler.adapters.broker import RedisView
from swarm.scaler.model import Unknown
from tests.contract.views.stage import (
    QUEUES,
    Rig,
    requests,
    until,
)


async def test_what_waits_is_counted_over_all_priorities(rig: Rig) -> None:
    rig.fill(browser=5)
    assert await rig.view.waiting(["browser", "analysis"], max_age_s=0) == {
        "browser": 5,
        "analysis": 0,
    }
    assert set(rig.view.piled()) == {"browser"}


async def test_a_queue_it_does_not_know_is_unknown_not_empty(rig: Rig) -> None:
    rig.fill()
    answer = await rig.view.waiting(["other"], max_age_s=0)
    assert answer == {"other": Unknown("no answer about queue other")}


async def test_an_answer_is_used_again_while_it_is_young_enough(
    view: RedisView, admin: redis.Redis
) -> None:
    await view.waiting(QUEUES, max_age_s=0)
    before = requests(admin, "evalsha", "eval")
    for _ in range(5):
        assert await view.waiting(QUEUES, max_age_s=60) == {"browser": 0, "analysis": 0}
    assert requests(admin, "evalsha", "eval") == before
    await view.waiting(QUEUES, max_age_s=0)
    assert requests(admin, "evalsha", "eval") == before + 1


async def test_questions_at_once_are_one_survey(view: RedisView, admin: redis.Redis) -> None:
    await view.waiting(QUEUES, max_age_s=0)
    before = requests(admin, "evalsha")
    await asyncio.gather(*(view.waiting(QUEUES, max_age_s=0) for _ in range(5)))
    assert requests(admin, "evalsha") == before + 1


async def test_when_something_may_have_vanished_it_is_looked_at_soon(
    make_view: Callable[..., RedisView], admin: redis.Redis
) -> None:
    async with make_view(close_s=0.2, least_s=0.1) as view:
        await view.waiting(QUEUES, max_age_s=0)
        before = requests(admin, "evalsha")
        view.attend(Attention(close=True))
        await until(lambda: requests(admin, "evalsha") > before)

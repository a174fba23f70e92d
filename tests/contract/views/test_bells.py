"""What a deserted queue's bell tells the scaler, and what listening to it costs."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import redis

from swarm.delivery import keys
from swarm.delivery.survey import Attention
from swarm.scaler.adapters.broker import RedisView
from tests.contract.views.stage import (
    DESERTED,
    QUEUES,
    Rig,
    publish,
    requests,
    until,
)


async def test_no_queue_is_quiet_to_which_nobody_listens(rig: Rig) -> None:
    rig.fill()
    rig.view.attend(Attention())
    assert rig.view.quiet() == frozenset()


async def test_a_deserted_queue_is_quiet_until_its_bell_rings(
    view: RedisView, admin: redis.Redis
) -> None:
    view.attend(DESERTED)
    assert view.quiet() == frozenset()
    await until(lambda: view.quiet() == {"analysis"})
    started = time.monotonic()
    publish(admin)
    await until(lambda: view.quiet() == frozenset())
    assert time.monotonic() - started < 1
    assert (await view.waiting(["analysis"], max_age_s=60))["analysis"] == 1
    # It is still rung for the worker that will come.
    assert admin.llen(keys.bell("analysis")) == 1
    # Taken: the bell is down, which the next survey sees, and its next ring is heard again.
    admin.delete("analysis", keys.bell("analysis"))
    await view.waiting(["analysis"], max_age_s=0)
    await until(lambda: view.quiet() == {"analysis"})
    publish(admin, tag="u")
    await until(lambda: view.quiet() == frozenset())


async def test_a_bell_that_was_rung_before_is_heard(view: RedisView, admin: redis.Redis) -> None:
    publish(admin)
    view.attend(DESERTED)
    await asyncio.sleep(1)
    assert view.quiet() == frozenset()
    assert requests(admin, "blmove") == 1
    assert (await view.waiting(["analysis"], max_age_s=math.inf))["analysis"] == 1


async def test_while_something_is_scheduled_no_silence_is_claimed(
    view: RedisView, admin: redis.Redis
) -> None:
    """The bell stays up for whoever will watch the schedule, so it says nothing of the rest."""
    publish(admin, due=str(int((time.time() + 60) * 1000)))
    view.attend(DESERTED)
    for _ in range(5):
        await view.waiting(QUEUES, max_age_s=0)
        await asyncio.sleep(0.2)
    assert view.quiet() == frozenset()
    assert requests(admin, "blmove") == 1


async def test_who_is_no_longer_deserted_is_no_longer_listened_to(
    view: RedisView, admin: redis.Redis
) -> None:
    def listeners() -> list[Any]:
        clients: Any = admin.client_list()
        return [client for client in clients if client["cmd"] == "blmove"]

    view.attend(DESERTED)
    await until(lambda: view.quiet() == {"analysis"})
    assert len(listeners()) == 1
    view.attend(Attention())
    assert view.quiet() == frozenset()
    await until(lambda: not listeners())


async def test_a_scheduled_task_waits_once_it_is_due_though_nobody_runs(
    view: RedisView, admin: redis.Redis
) -> None:
    view.attend(DESERTED)
    await until(lambda: view.quiet() == {"analysis"})
    publish(admin, due=str(int((time.time() + 3) * 1000)))
    await until(lambda: "analysis" in view.piled(), timeout_s=6)
    assert (await view.waiting(["analysis"], max_age_s=60))["analysis"] == 1


async def test_at_rest_it_costs_next_to_nothing(view: RedisView, admin: redis.Redis) -> None:
    view.attend(DESERTED)
    await until(lambda: view.quiet() == {"analysis"})
    before = requests(admin, "evalsha", "eval", "blmove", "auth", "hello", "client|setinfo")
    for _ in range(30):
        view.attend(DESERTED)
        await asyncio.sleep(0.1)
    after = requests(admin, "evalsha", "eval", "blmove", "auth", "hello", "client|setinfo")
    assert after == before

"""How a broker is by the surveys of it: away, refusing, hanging, back again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from swarm.delivery.survey import Rhythm
from swarm.scaler.adapters.broker import RedisView
from swarm.scaler.adapters.metrics import ScalerMetrics
from swarm.scaler.model import BrokerCondition, Unknown
from tests.contract.views.stage import (
    ANSWERS,
    DESERTED,
    QUEUES,
    Rig,
    until,
)
from tests.loopback import RedisServer, free_port
from tests.role_redis import RoleRedis


async def test_a_broker_is_down_from_when_it_is_lost_until_it_answers(rig: Rig) -> None:
    rig.fill(browser=1)
    await rig.view.waiting(QUEUES, max_age_s=0)
    assert rig.view.condition() == ANSWERS
    rig.lose()
    answer = await rig.view.waiting(QUEUES, max_age_s=0)
    assert all(isinstance(length, Unknown) for length in answer.values())
    condition = rig.view.condition()
    assert condition.down_for_s is not None
    assert condition.down_for_s < 5
    assert condition.reason
    assert not condition.reached
    rig.find()
    assert await rig.view.waiting(["browser"], max_age_s=0) == {"browser": 1}
    assert rig.view.condition() == ANSWERS


@pytest.mark.parametrize("right", ["-blmove", "-evalsha -eval"])
async def test_what_is_refused_is_told_once_and_done_without(
    role_redis: RoleRedis,
    admin: redis.Redis,
    make_view: Callable[..., RedisView],
    caplog: pytest.LogCaptureFixture,
    right: str,
) -> None:
    rules = ["on", ">pw", "~*", "&*", "+@all", *right.split()]
    cast("Any", admin).execute_command("ACL", "SETUSER", "limited", *rules)
    url = role_redis.url("scaler").replace(
        role_redis.url("scaler").split("@")[0], "redis://limited:pw"
    )
    async with make_view(url) as view:
        view.attend(DESERTED)
        for _ in range(3):
            await view.waiting(QUEUES, max_age_s=0)
        answer = await view.waiting(QUEUES, max_age_s=0)
        await asyncio.sleep(0.7)
        assert view.quiet() == (frozenset() if right == "-blmove" else {"analysis"})
        # It is there, and need not refuse others; that it is reached only an answer says.
        assert view.condition() == (ANSWERS if right == "-blmove" else BrokerCondition())
    if right == "-blmove":
        assert answer == {"browser": 0, "analysis": 0}
    else:
        assert all(isinstance(length, Unknown) for length in answer.values())
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "pw" not in caplog.text


async def test_a_broker_that_is_away_is_unknown_told_once_and_counted(
    make_view: Callable[..., RedisView],
    metrics: ScalerMetrics,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with make_view(f"redis://scaler:s3cret@127.0.0.1:{free_port()}/0") as view:
        view.attend(DESERTED)
        for _ in range(3):
            await view.waiting(QUEUES, max_age_s=0)
        answer = await view.waiting(QUEUES, max_age_s=0)
    assert list(answer) == list(QUEUES)
    for length in answer.values():
        assert isinstance(length, Unknown)
        assert length.reason.startswith("the broker does not answer: ")
    assert view.quiet() == frozenset()
    assert view.piled() == {}
    labels = {"broker": "primary", "result": "failed"}
    failed = metrics.registry.get_sample_value("swarm_scaler_surveys_total", labels)
    assert failed
    assert failed >= 3
    told = [record.getMessage() for record in caplog.records]
    assert sum("does not answer the scaler" in line for line in told) == 1
    assert "s3cret" not in caplog.text


async def test_a_broker_that_hangs_delays_nothing_for_long(
    make_view: Callable[..., RedisView],
) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            continue
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    started = time.monotonic()
    async with make_view(f"redis://127.0.0.1:{port}/0") as view:
        answer = await view.waiting(QUEUES, max_age_s=0)
    assert time.monotonic() - started < 9
    assert all(isinstance(length, Unknown) for length in answer.values())
    server.close()
    await server.wait_closed()


async def test_how_long_it_has_been_down_is_counted_from_the_first_failure(
    make_view: Callable[..., RedisView],
) -> None:
    async with make_view(f"redis://127.0.0.1:{free_port()}/0") as view:
        assert view.condition() == BrokerCondition(), "not looked at yet"
        for _ in range(4):
            await view.waiting(QUEUES, max_age_s=0)
            await asyncio.sleep(0.1)
        condition = view.condition()
    assert condition.down_for_s is not None
    assert condition.down_for_s >= 0.4
    assert "Connection refused" in condition.reason


async def test_while_it_is_down_it_is_looked_at_by_itself_more_rarely_after_a_while(
    make_view: Callable[..., RedisView], metrics: ScalerMetrics
) -> None:
    def failed() -> float:
        labels = {"broker": "primary", "result": "failed"}
        return metrics.registry.get_sample_value("swarm_scaler_surveys_total", labels) or 0

    rhythm = {"close_s": 0.1, "given_up_after_s": 1.0, "given_up_s": 60.0}
    async with make_view(f"redis://127.0.0.1:{free_port()}/0", **rhythm) as view:
        await until(lambda: (view.condition().down_for_s or 0) > 1.2)
        looks = failed()
        await asyncio.sleep(1)
        assert 4 <= looks <= 13
        assert failed() == looks
    assert (Rhythm().close_s, Rhythm().given_up_s, Rhythm().given_up_after_s) == (10, 30, 300)


async def test_the_return_is_noticed_though_nobody_asks(
    tmp_path: Path, make_view: Callable[..., RedisView], caplog: pytest.LogCaptureFixture
) -> None:
    server = RedisServer(tmp_path)
    caplog.set_level(logging.INFO)
    async with make_view(server.url, alone=False, close_s=0.1) as view:
        await until(lambda: view.condition().down_for_s is not None)
        with server:
            await until(lambda: view.condition() == ANSWERS)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith("the primary broker does not answer the scaler; ")
    assert told[1] == "the primary broker answers again"


async def test_where_there_are_two_the_broker_is_named(
    make_view: Callable[..., RedisView], caplog: pytest.LogCaptureFixture
) -> None:
    async with make_view(f"redis://127.0.0.1:{free_port()}/0", alone=False) as view:
        view.attend(DESERTED)
        answer = await view.waiting(["analysis"], max_age_s=0)
        await until(lambda: "not announced" in caplog.text)
    [length] = answer.values()
    assert isinstance(length, Unknown)
    assert length.reason.startswith("the primary broker does not answer: ")
    assert "tasks for queue analysis of the primary are not announced" in caplog.text

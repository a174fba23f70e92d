"""What the scaler may rely on of its view of the broker: in memory, and a real Redis.

The real one enters as the role's user `scaler`, so its rights are tested too.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, cast

import psutil
import pytest
import redis

from swarm.brokers import Broker
from swarm.delivery import keys, scripts
from swarm.delivery.survey import Attention, Rhythm
from swarm.scaler.adapters.broker import RedisView
from swarm.scaler.adapters.metrics import ScalerMetrics
from swarm.scaler.model import BrokerCondition, Unknown
from swarm.scaler.ports import BrokerView
from tests.builders import make_settings
from tests.fakes import FakeQueues, FakeView
from tests.loopback import RedisServer, free_port
from tests.role_redis import RoleRedis

QUEUES = ("browser", "analysis")
ANSWERS = BrokerCondition(reached=True)
DESERTED = Attention(untended=frozenset({"analysis"}), deserted=frozenset({"analysis"}))


@pytest.fixture
def admin(role_redis: RoleRedis) -> Iterator[redis.Redis]:
    with role_redis.connect("admin") as admin:
        admin.flushdb()
        admin.config_resetstat()
        yield admin


def requests(admin: redis.Redis, *names: str) -> int:
    """How often Redis ran these commands."""
    rows: Any = admin.info("commandstats")
    return sum(int(rows.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in names)


async def until(condition: Callable[[], object], *, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - it is about another process
            await asyncio.sleep(0.02)


def publish(admin: redis.Redis, queue: str = "analysis", *, due: str = "", tag: str = "t") -> None:
    message = f'{{"properties": {{"delivery_tag": "{tag}"}}}}'
    scripts.PUBLISH.run(admin, tag, queue, message, due, "", 60, tag, 60)


@pytest.fixture
def metrics() -> ScalerMetrics:
    return ScalerMetrics(make_settings())


@pytest.fixture
def make_view(role_redis: RoleRedis, metrics: ScalerMetrics) -> Callable[..., RedisView]:
    def make(url: str | None = None, *, alone: bool = True, **rhythm: float) -> RedisView:
        broker = Broker("primary", url or role_redis.url("scaler"))
        return RedisView(broker, QUEUES, Rhythm(**rhythm), metrics, alone=alone)

    return make


@pytest.fixture
async def view(admin: redis.Redis, make_view: Callable[..., RedisView]) -> AsyncIterator[RedisView]:
    async with make_view() as view:
        yield view


class Rig(Protocol):
    view: BrokerView

    def fill(self, **lengths: int) -> None: ...
    def lose(self) -> None: ...
    def find(self) -> None: ...


class FakeRig:
    def __init__(self) -> None:
        self.queues = FakeQueues()
        self.fake = FakeView(self.queues)
        self.view: BrokerView = self.fake

    def fill(self, **lengths: int) -> None:
        self.queues.lengths.update({**dict.fromkeys(QUEUES, 0), **lengths})
        self.fake.piles = {queue: 1.0 for queue, length in lengths.items() if length}

    def lose(self) -> None:
        self.fake.away, self.fake.down_for_s = "gone", 0.0

    def find(self) -> None:
        self.fake.away = self.fake.down_for_s = None


class RedisRig:
    def __init__(self, view: RedisView, admin: redis.Redis, process: psutil.Process) -> None:
        self.view: BrokerView = view
        self._admin = admin
        self._process = process

    def fill(self, **lengths: int) -> None:
        for queue, length in lengths.items():
            for number in range(length):
                # Half of them at another priority.
                name = f"{queue}\x06\x163" if number % 2 else queue
                self._admin.lpush(name, f"m{number}")

    def lose(self) -> None:
        """It hangs."""
        self._process.suspend()

    def find(self) -> None:
        self._process.resume()


@pytest.fixture(params=["fake", "redis"])
def rig(
    request: pytest.FixtureRequest, view: RedisView, admin: redis.Redis, role_redis: RoleRedis
) -> Iterator[Rig]:
    if request.param == "fake":
        yield FakeRig()
        return
    assert role_redis.process is not None
    rig = RedisRig(view, admin, psutil.Process(role_redis.process.pid))
    yield rig
    rig.find()


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


async def test_no_queue_is_quiet_to_which_nobody_listens(rig: Rig) -> None:
    rig.fill()
    rig.view.attend(Attention())
    assert rig.view.quiet() == frozenset()


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
        assert view.quiet() == frozenset() or right != "-blmove"
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


async def test_at_rest_it_costs_next_to_nothing(view: RedisView, admin: redis.Redis) -> None:
    view.attend(DESERTED)
    await until(lambda: view.quiet() == {"analysis"})
    before = requests(admin, "evalsha", "eval", "blmove", "auth", "hello", "client|setinfo")
    for _ in range(30):
        view.attend(DESERTED)
        await asyncio.sleep(0.1)
    after = requests(admin, "evalsha", "eval", "blmove", "auth", "hello", "client|setinfo")
    assert after == before


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


async def test_when_something_may_have_vanished_it_is_looked_at_soon(
    make_view: Callable[..., RedisView], admin: redis.Redis
) -> None:
    async with make_view(close_s=0.2, least_s=0.1) as view:
        await view.waiting(QUEUES, max_age_s=0)
        before = requests(admin, "evalsha")
        view.attend(Attention(close=True))
        await until(lambda: requests(admin, "evalsha") > before)

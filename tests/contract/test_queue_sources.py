"""What the scaler may rely on of a queue source: in memory, and Flower's HTTP API."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest
from aiohttp import web

from swarm.scaler.adapters.flower import FlowerQueues
from swarm.scaler.model import Unknown
from swarm.scaler.ports import QueueSource
from swarm.settings import FlowerSettings
from tests.fakes import FakeQueues

CREDENTIALS = "swarm:pass:wörd ☂"


class Flower:
    """Answers as Flower 2 does: rows for the queues that workers or the app declare."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.answer: web.StreamResponse | None = None
        self.metrics = ""
        self.delay_s = 0.0
        self.requests = 0
        self.port = 0
        self._released = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self) -> None:
        application = web.Application()
        application.router.add_get("/api/queues/length", self._lengths)
        application.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        self._released.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _lengths(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        if (
            request.headers.get("Authorization")
            != f"Basic {b64encode(CREDENTIALS.encode()).decode()}"
        ):
            return web.Response(status=401, text="Access denied")
        if self.delay_s:
            # Let go at the end of the test, not of the delay.
            await asyncio.wait([asyncio.ensure_future(self._released.wait())], timeout=self.delay_s)
        if self.answer is not None:
            return self.answer
        return web.json_response({"active_queues": self.rows})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(text=self.metrics)


@pytest.fixture
async def flower() -> AsyncIterator[Flower]:
    flower = Flower()
    await flower.serve()
    yield flower
    await flower.close()


@pytest.fixture
async def queues(flower: Flower) -> AsyncIterator[FlowerQueues]:
    settings = FlowerSettings(url=flower.url, timeout_s=1.0)
    async with FlowerQueues(settings, CREDENTIALS) as queues:
        yield queues


class Rig(Protocol):
    source: QueueSource

    def fill(self, **lengths: int) -> None: ...
    async def lose(self) -> None: ...


class FakeRig:
    def __init__(self) -> None:
        self.fake = FakeQueues()
        self.source: QueueSource = self.fake

    def fill(self, **lengths: int) -> None:
        self.fake.lengths.update(lengths)

    async def lose(self) -> None:
        self.fake.away = "away"


class FlowerRig:
    def __init__(self, flower: Flower, queues: FlowerQueues) -> None:
        self.flower = flower
        self.source: QueueSource = queues

    def fill(self, **lengths: int) -> None:
        self.flower.rows = [{"name": name, "messages": n} for name, n in lengths.items()]

    async def lose(self) -> None:
        await self.flower.close()


@pytest.fixture(params=["fake", "flower"])
def rig(request: pytest.FixtureRequest, flower: Flower, queues: FlowerQueues) -> Rig:
    return FakeRig() if request.param == "fake" else FlowerRig(flower, queues)


async def test_the_queues_asked_for_are_answered(rig: Rig) -> None:
    rig.fill(browser=12, analysis=0, other=5)
    assert await rig.source.waiting(["browser", "analysis"]) == {"browser": 12, "analysis": 0}


async def test_no_queues_are_no_answer(rig: Rig) -> None:
    assert await rig.source.waiting([]) == {}


async def test_a_queue_it_does_not_know_is_unknown_not_empty(rig: Rig) -> None:
    rig.fill(browser=3)
    answer = await rig.source.waiting(["browser", "slow"])
    assert answer["browser"] == 3
    slow = answer["slow"]
    assert isinstance(slow, Unknown)
    assert "slow" in slow.reason


async def test_while_it_is_away_every_queue_is_unknown(rig: Rig) -> None:
    rig.fill(browser=3, analysis=1)
    await rig.lose()
    answer = await rig.source.waiting(["browser", "analysis"])
    assert list(answer) == ["browser", "analysis"]
    for length in answer.values():
        assert isinstance(length, Unknown)
        assert length.reason


async def test_several_questions_at_once(rig: Rig) -> None:
    rig.fill(browser=3)
    answers = await asyncio.gather(*(rig.source.waiting(["browser"]) for _ in range(5)))
    assert answers == [{"browser": 3}] * 5


async def unknown(queues: FlowerQueues) -> str:
    length = (await queues.waiting(["browser"]))["browser"]
    assert isinstance(length, Unknown)
    return length.reason


@pytest.mark.parametrize("credentials", [None, "swarm:wrong", "swarm", ":"])
async def test_a_refused_password_is_said_as_such(flower: Flower, credentials: str | None) -> None:
    async with FlowerQueues(FlowerSettings(url=flower.url), credentials) as queues:
        reason = await unknown(queues)
    assert reason == "Flower refused the password: check the credential flower-auth"


@pytest.mark.parametrize("status", [400, 403, 404, 500, 502, 503])
async def test_another_status_is_named(flower: Flower, queues: FlowerQueues, status: int) -> None:
    flower.answer = web.json_response({"active_queues": []}, status=status)
    assert await unknown(queues) == f"Flower answered {status}"


@pytest.mark.parametrize(
    ("text", "content_type", "reason"),
    [
        ("<html>log in</html>", "text/html", "not JSON"),
        ("", "text/html", "not JSON"),
        ("<html>", "application/json", "not JSON"),
        ("", "application/json", "not JSON"),
        ("[" * 100_000, "application/json", "not JSON"),
        ('{"active_queues": [', "application/json", "not JSON"),
        ("[]", "application/json", "has no active_queues"),
        ("null", "application/json", "has no active_queues"),
        ("{}", "application/json", "has no active_queues"),
        ('{"active_queues": {}}', "application/json", "has no active_queues"),
        ('{"active_queues": []}', "application/json", "does not list queue browser"),
        ('{"active_queues": [1, null, "browser"]}', "application/json", "does not list"),
        ('{"active_queues": [{"messages": 3}]}', "application/json", "does not list"),
    ],
)
async def test_an_answer_without_lengths_is_unknown(
    flower: Flower, queues: FlowerQueues, text: str, content_type: str, reason: str
) -> None:
    flower.answer = web.Response(text=text, content_type=content_type)
    assert reason in await unknown(queues)


@pytest.mark.parametrize(
    "messages", [-1, 1.5, "3", None, True, [], {}, 10**12, 10**400, float("nan"), float("inf")]
)
async def test_a_length_that_is_no_count_is_unknown(
    flower: Flower, queues: FlowerQueues, messages: object
) -> None:
    flower.rows = [{"name": "browser", "messages": messages}]
    assert "as the length of queue browser" in await unknown(queues)


async def test_a_row_without_a_length_is_unknown(flower: Flower, queues: FlowerQueues) -> None:
    flower.rows = [{"name": "browser"}]
    assert "as the length of queue browser" in await unknown(queues)


async def test_a_slow_flower_is_given_up(flower: Flower) -> None:
    flower.delay_s = 30
    started_at = time.monotonic()
    async with FlowerQueues(FlowerSettings(url=flower.url, timeout_s=0.3), CREDENTIALS) as queues:
        assert await unknown(queues) == "Flower did not answer in 0.3 s"
    assert time.monotonic() - started_at < 2


async def test_a_closed_port_is_unknown_and_shows_no_password() -> None:
    async with FlowerQueues(FlowerSettings(url="http://127.0.0.1:1"), CREDENTIALS) as queues:
        reason = await unknown(queues)
    assert reason.startswith("Flower is away: ")
    assert "pass" not in reason


async def test_a_server_that_hangs_up_is_unknown() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    settings = FlowerSettings(url=f"http://127.0.0.1:{port}")
    async with FlowerQueues(settings, CREDENTIALS) as queues:
        assert (await unknown(queues)).startswith("Flower is away: ")
    server.close()
    await server.wait_closed()


async def test_flower_may_come_back(flower: Flower, queues: FlowerQueues) -> None:
    flower.answer = web.Response(status=500)
    await unknown(queues)
    flower.answer = None
    flower.rows = json.loads('[{"name": "browser", "messages": 4}]')
    assert await queues.waiting(["browser"]) == {"browser": 4}


async def test_a_url_may_end_with_a_slash_or_hold_a_path(flower: Flower) -> None:
    flower.rows = [{"name": "browser", "messages": 4}]
    async with FlowerQueues(FlowerSettings(url=f"{flower.url}/"), CREDENTIALS) as queues:
        assert await queues.waiting(["browser"]) == {"browser": 4}


async def test_outside_its_block_it_is_a_defect() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await FlowerQueues(FlowerSettings(), None).waiting(["browser"])


async def test_where_there_are_two_each_is_asked_at_its_address_and_named(flower: Flower) -> None:
    flower.rows = [{"name": "browser", "messages": 3}]
    settings = FlowerSettings(url="http://127.0.0.1:1", fallback_url=flower.url)
    async with FlowerQueues(settings, CREDENTIALS, broker="fallback", alone=False) as queues:
        assert await queues.waiting(["browser"]) == {"browser": 3}
        assert await queues.waiting(["other"]) == {
            "other": Unknown("the fallback's Flower does not list queue other")
        }
    async with FlowerQueues(settings, CREDENTIALS, broker="primary", alone=False) as queues:
        [length] = (await queues.waiting(["browser"])).values()
    assert isinstance(length, Unknown)
    assert length.reason.startswith("the primary's Flower is away: ")


COUNT = 'swarm_broker_requests_total{process="77"} '


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        (f"# HELP x y\n{COUNT}1234.0\nother 1\n", (77, 1234)),
        (f"{COUNT}1.25e+06\n", (77, 1_250_000)),
        ("", None),
        ("swarm_broker_requests_total 5\n", None),
        # Nothing that it says ends the scaler.
        (f"{COUNT}1.2.3\n", None),
        (f"{COUNT}1e999\n", None),
    ],
)
async def test_what_flower_asks_of_a_metered_broker_is_among_its_metrics(
    flower: Flower, queues: FlowerQueues, metrics: str, told: tuple[int, int] | None
) -> None:
    flower.metrics = metrics
    assert await queues.requests() == told


async def test_without_a_flower_nobody_says_what_it_asks(
    flower: Flower, queues: FlowerQueues
) -> None:
    await flower.close()
    assert await queues.requests() is None

"""What the tests of a view share: both kinds of broker, and what is asked of a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

import psutil
import redis

from swarm.delivery import scripts
from swarm.delivery.survey import Attention
from swarm.scaler.adapters.broker import RedisView
from swarm.scaler.model import BrokerCondition
from swarm.scaler.ports import BrokerView
from tests.fakes import FakeQueues, FakeView

QUEUES = ("browser", "analysis")
ANSWERS = BrokerCondition(reached=True)
DESERTED = Attention(untended=frozenset({"analysis"}), deserted=frozenset({"analysis"}))


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

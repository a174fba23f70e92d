"""The scaler's listeners to bells, on a real Redis."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

from swarm.environment import read_broker
from swarm.scaler.adapters.bells import Bells
from tests.loopback import RedisServer


async def test_a_listener_that_is_not_wanted_any_more_ends_without_a_word(tmp_path: Path) -> None:
    """In whatever state it leaves its connection, nothing of it reaches the journal later."""
    said: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    with RedisServer(tmp_path) as server, server.connect() as redis:
        bells = Bells(read_broker({"REDIS_URL": server.url}), lambda: None)
        for wait_s in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8):
            bells.listen({"browser"})
            async with asyncio.timeout(20):
                while not waited_for(redis):  # noqa: ASYNC110 - Redis tells nobody
                    await asyncio.sleep(0.01)
            await asyncio.sleep(wait_s)
            bells.listen(())
            await asyncio.sleep(0.05)
        await bells.close()
        gc.collect()
    assert said == []


def waited_for(redis: Any) -> int:
    """How many clients wait for a key."""
    return int(redis.info("clients")["blocked_clients"])

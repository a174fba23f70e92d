"""What tests do with messages by the scripts themselves, and where they then find them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import redis

from swarm.delivery import keys, scripts
from swarm.delivery.outcome import Outcome

ME, OTHER = "host:browser:1:a", "host:browser:2:b"
SEPARATOR = "\x06\x16"


def message(task_id: str = "", tag: str = "", **headers: Any) -> str:
    return json.dumps(
        {
            "body": "W10=",
            "headers": {"task": "browser.run", "id": task_id or uuid4().hex, **headers},
            "properties": {"delivery_tag": tag or uuid4().hex},
        }
    )


def publish(
    client: redis.Redis,
    queue: str = "q",
    *,
    tag: str = "",
    due: str = "",
    key: str = "",
    task_id: str = "",
) -> str:
    tag, task_id = tag or uuid4().hex, task_id or uuid4().hex
    text = message(task_id, tag)
    answer = scripts.PUBLISH.run(client, tag, queue, text, due, key, 60, task_id, 60)
    return str(answer.decode()) or tag


def take(
    client: redis.Redis,
    *queues: str,
    holder: str = ME,
    most: int = 1,
    watches: bool = False,
    priorities: tuple[int, ...] = (0, 3, 6, 9),
) -> tuple[bool, int, list[str]]:
    """(more, milliseconds until the next is due or -1, tags)."""
    queues = queues or ("q",)
    lists = [f"{q}{SEPARATOR}{p}" if p else q for p in priorities for q in queues]
    more, due, now, *taken = scripts.TAKE.run(
        client, holder, most, "1" if watches else "0", ",".join(queues), *lists
    )
    tags = [json.loads(raw)["properties"]["delivery_tag"] for raw in taken[1::3]]
    return bool(more), due if due < 0 else due - now, tags


def held(client: redis.Redis, holder: str = ME) -> list[str]:
    envelopes: Any = client.lrange(keys.held(holder), 0, -1)
    return [json.loads(e.split(b"\n", 1)[1])["properties"]["delivery_tag"] for e in envelopes]


def waiting(client: redis.Redis, queue: str = "q") -> list[str]:
    """Tags, the next one to be taken first."""
    return [
        json.loads(raw)["properties"]["delivery_tag"]
        for raw in reversed(client.lrange(queue, 0, -1))
    ]


def is_rung(client: redis.Redis, queue: str = "q") -> bool:
    return bool(client.llen(keys.bell(queue)))


def commit(client: redis.Redis, outcome: Outcome, holder: str = ME) -> str:
    return str(scripts.COMMIT.run(client, *outcome.arguments(holder, done_ttl_s=60)).decode())


def due_in(seconds: float) -> str:
    return str(int((datetime.now(UTC) + timedelta(seconds=seconds)).timestamp() * 1000))


def let_pass(client: redis.Redis, seconds: float) -> None:
    """What is scheduled is due that much sooner, as if so much time had gone by."""
    for scheduled in client.scan_iter("swarm:scheduled:*"):
        members: Any = client.zrange(scheduled, 0, -1)
        for member in members:
            client.zincrby(scheduled, -seconds * 1000, member)


def taken(client: redis.Redis, task_id: str = "task") -> Outcome:
    tag = publish(client, task_id=task_id)
    take(client)
    return Outcome(tag, task_id)

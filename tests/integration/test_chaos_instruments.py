"""What `make chaos` strikes and sees with, on a real Redis: the proxy's traps and the witness."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from chaos.proxy import Shas, TrapProxy, Where
from chaos.recovery import HeldMessage, look
from chaos.submissions import Entry, FinalStatuses
from chaos.witness import examine, judge, read_commands
from swarm.delivery import scripts
from tests.loopback import PASSWORD, REDIS, RedisServer
from tests.programs import need

HOLDER = "worker1:analysis:1:first"
SHAS = Shas(scripts.TAKE.sha, scripts.COMMIT.sha)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    need(REDIS, "redis-tools")
    durable = ("--appendonly", "yes", "--appendfsync", "always")
    with RedisServer(tmp_path, options=durable) as server:
        yield server


def publish(client: redis.Redis, task_id: str) -> None:
    headers = {"id": task_id, "task": "analysis.run"}
    message = json.dumps({"headers": headers, "properties": {"delivery_tag": f"tag-{task_id}"}})
    arguments = (f"tag-{task_id}", "analysis", message, "", "", 60, task_id, 60)
    scripts.PUBLISH.run(client, *arguments)


def take(client: redis.Redis, holder: str = HOLDER) -> None:
    scripts.TAKE.run(client, holder, 1, "0", "analysis", "analysis")


def commit(client: redis.Redis, task_id: str, holder: str = HOLDER) -> bytes:
    key, value = f"celery-task-meta-{task_id}", '{"status": "SUCCESS", "result": 1}'
    effects = ("store", key, value, 60)
    answer: bytes = scripts.COMMIT.run(client, holder, f"tag-{task_id}", task_id, 60, *effects)
    return answer


def take_and_commit(client: redis.Redis, task_id: str) -> None:
    take(client)
    commit(client, task_id)


@pytest.mark.parametrize(
    ("where", "held", "done"),
    [("after a take", 1, 0), ("before a commit", 1, 0), ("after a commit", 0, 1)],
)
def test_a_trap_strikes_between_two_steps(
    server: RedisServer, where: Where, held: int, done: int
) -> None:
    springs: list[str] = []

    def spring(holder: str) -> bool:
        springs.append(holder)
        return True

    direct = server.connect()
    publish(direct, "a")
    with TrapProxy("127.0.0.1", ("127.0.0.1", server.port), SHAS) as proxy:
        once = Retry(NoBackoff(), 0)
        through = redis.Redis(port=proxy.port, password=PASSWORD, retry=once, socket_timeout=5)
        # Nothing is there to be taken, and so nothing is caught.
        scripts.TAKE.run(through, HOLDER, 1, "0", "browser", "browser")
        trap = proxy.set(where, spring)
        with pytest.raises(redis.ConnectionError):
            take_and_commit(through, "a")
        assert trap.sprung.wait(5)
    assert springs == [HOLDER]
    assert len(look(direct)) == held
    assert direct.exists("swarm:done:a") == done


def test_what_is_held_is_seen_with_its_task(server: RedisServer) -> None:
    client = server.connect()
    publish(client, "a")
    take(client)
    assert look(client) == [HeldMessage(HOLDER, "tag-a", "a", 0)]


def test_redis_own_file_tells_what_was_committed_and_how_often(server: RedisServer) -> None:
    client = server.connect()
    for task_id in ("once", "twice", "lost"):
        publish(client, task_id)
        take(client)
    commit(client, "once")
    commit(client, "twice")
    # What must never happen: its mark is gone, and it is taken and committed again.
    client.delete("swarm:done:twice", *client.keys("swarm:sent:*"))
    publish(client, "twice")
    take(client, "worker2:analysis:1:second")
    assert commit(client, "twice", "worker2:analysis:1:second") == b"committed"
    # A worker that was given up comes too late, and that is no commit.
    assert commit(client, "once", "worker2:analysis:1:second") == b"gone"

    (file,) = (server.directory / "appendonlydir").glob("*.incr.aof")
    evidence = examine(read_commands(file.read_bytes()))

    entry = Entry(0, "accepted", "page", ("once", "twice", "lost"))
    verdict = judge(FinalStatuses((entry,), ()), evidence)
    assert verdict.lost == ("lost",)
    assert verdict.committed_twice == ("twice",)
    assert verdict.retaken == 1

"""What `make chaos` strikes and sees with, on a real Redis: the proxy's traps and the witness."""

from __future__ import annotations

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
from swarm.delivery.outcome import Outcome
from tests.contract.delivery.messages import commit, publish, take
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


def publish_task(client: redis.Redis, task_id: str) -> None:
    publish(client, "analysis", tag=f"tag-{task_id}", task_id=task_id)


def take_task(client: redis.Redis, holder: str = HOLDER) -> None:
    take(client, "analysis", holder=holder)


def commit_task(client: redis.Redis, task_id: str, holder: str = HOLDER) -> str:
    outcome = Outcome(f"tag-{task_id}", task_id)
    outcome.store(f"celery-task-meta-{task_id}", '{"status": "SUCCESS", "result": 1}', 60)
    return commit(client, outcome, holder)


def take_and_commit(client: redis.Redis, task_id: str) -> None:
    take_task(client)
    commit_task(client, task_id)


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
    with TrapProxy("127.0.0.1", ("127.0.0.1", server.port), SHAS) as proxy:
        once = Retry(NoBackoff(), 0)
        through = redis.Redis(port=proxy.port, password=PASSWORD, retry=once, socket_timeout=5)
        trap = proxy.set(where, spring)
        # Nothing is there to be taken, and so nothing is caught.
        take_task(through)
        publish_task(direct, "a")
        with pytest.raises(redis.ConnectionError):
            take_and_commit(through, "a")
        assert trap.sprung.wait(5)
    assert springs == [HOLDER]
    assert len(look(direct)) == held
    assert direct.exists("swarm:done:a") == done


def test_what_is_held_is_seen_with_its_task(server: RedisServer) -> None:
    client = server.connect()
    publish_task(client, "a")
    take_task(client)
    assert look(client) == [HeldMessage(HOLDER, "tag-a", "a", 0)]


def test_redis_own_file_tells_what_was_committed_and_how_often(server: RedisServer) -> None:
    client = server.connect()
    for task_id in ("once", "twice", "lost"):
        publish_task(client, task_id)
        take_task(client)
    commit_task(client, "once")
    commit_task(client, "twice")
    # What must never happen: its mark is gone, and it is taken and committed again.
    client.delete("swarm:done:twice", *client.keys("swarm:sent:*"))
    publish_task(client, "twice")
    take_task(client, "worker2:analysis:1:second")
    assert commit_task(client, "twice", "worker2:analysis:1:second") == "committed"
    # A worker that was given up comes too late, and that is no commit.
    assert commit_task(client, "once", "worker2:analysis:1:second") == "gone"

    (file,) = (server.directory / "appendonlydir").glob("*.incr.aof")
    evidence = examine(read_commands(file.read_bytes()))

    entry = Entry(0, "accepted", "page", ("once", "twice", "lost"))
    verdict = judge(FinalStatuses((entry,), ()), evidence)
    assert verdict.lost == ("lost",)
    assert verdict.committed_twice == ("twice",)
    assert verdict.retaken == 1

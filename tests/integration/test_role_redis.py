"""The swarm on a Redis as the role deploys it: each service as its own user, and a full Redis."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.flower_process import Flower
from tests.integration.stage import Stage
from tests.loopback import wait_until
from tests.role_redis import RoleRedis

PAYLOAD = json.dumps({"html": "<title>Harbour</title><p>Lanterns.</p>"})


@dataclass
class StageAs(Stage):
    """A stage whose processes enter Redis as one user."""

    url: str = ""

    @property
    def environ(self) -> dict[str, str]:
        return {**super().environ, "REDIS_URL": self.url}


@pytest.fixture
def redis(role_redis: RoleRedis) -> Iterator[RoleRedis]:
    def reset() -> None:
        with role_redis.connect("admin") as admin:
            admin.config_set("maxmemory", role_redis.mark)
            admin.flushall()
            admin.acl_log_reset()

    reset()
    yield role_redis
    reset()


def submit(stage: Stage, redis: RoleRedis, *options: str) -> Any:
    return stage.swarm("submit", "analysis", *options, PAYLOAD, REDIS_URL=redis.url("producer"))


def test_each_service_works_as_its_own_user_and_asks_for_no_more(
    stage: Stage, redis: RoleRedis
) -> None:
    stage.run_ready("analysis", REDIS_URL=redis.url("worker"))
    done = submit(stage, redis, "--wait", "30")
    assert json.loads(done.stdout)["state"] == "done", done.stderr
    dead = stage.swarm("dead", "list", REDIS_URL=redis.url("scaler"))
    assert dead.returncode == 0, dead.stderr

    own = StageAs(stage.directory, stage.redis, stage.site, stage.config, url=redis.url("flower"))
    flower = Flower(own)
    flower.start()
    try:
        request = urllib.request.Request(f"{flower.url}/api/queues/length")
        token = base64.b64encode(flower.auth.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
        with urllib.request.urlopen(request, timeout=10) as answer:
            queues = {row["name"] for row in json.load(answer)["active_queues"]}
        assert queues >= {"browser", "analysis"}
    finally:
        flower.stop()

    with redis.connect("admin") as admin:
        refused = {(entry["username"], entry["object"]) for entry in admin.acl_log()}
    # Flower asks each worker about itself when it starts, and no worker listens.
    assert [one for one in refused if ".reply.celery.pidbox" not in one[1]] == []


def test_a_full_redis_says_so_and_a_worker_that_starts_then_drains_it(
    stage: Stage, redis: RoleRedis
) -> None:
    ids = [submit(stage, redis).stdout.strip() for _ in range(3)]
    with redis.connect("admin") as admin:
        admin.config_set("maxmemory", 1)

        refused = submit(stage, redis)
        assert refused.returncode == 3
        assert "full" in refused.stderr
        assert admin.llen("analysis") == 3

        stage.run_ready("analysis", REDIS_URL=redis.url("worker"))
        wait_until(lambda: admin.llen("analysis") == 0, what="an empty queue")
        for task_id in ids:
            done = stage.swarm("result", task_id, "--wait", "20", REDIS_URL=redis.url("producer"))
            assert json.loads(done.stdout)["state"] == "done", done.stderr

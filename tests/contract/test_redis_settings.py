"""What the role's settings promise: a full Redis is drained, a restarted one has everything."""

from __future__ import annotations

import pytest
from redis.exceptions import OutOfMemoryError

from tests.role_redis import RoleRedis

PUBLISH = "redis.call('LPUSH', KEYS[1], ARGV[1]) return 1"
TAKE = """#!lua flags=allow-oom
local message = redis.call('RPOP', KEYS[1])
return message and redis.call('RPUSH', KEYS[2], message) and message"""
COMMIT = """#!lua flags=allow-oom
redis.call('LREM', KEYS[1], 1, ARGV[1])
redis.call('SET', KEYS[2], ARGV[2], 'EX', 60)
redis.call('SET', KEYS[3], '1', 'EX', 60)
redis.call('PUBLISH', KEYS[2], ARGV[2])
return 1"""


def test_at_the_memory_mark_publishing_is_refused_and_the_rest_drains_the_queue(
    redis: RoleRedis,
) -> None:
    with (
        redis.connect("producer") as producer,
        redis.connect("worker") as worker,
        redis.connect("admin") as admin,
    ):
        admin.delete("browser")
        publish = producer.register_script(PUBLISH)
        take, commit = worker.register_script(TAKE), worker.register_script(COMMIT)
        # Not known to Redis before: loading a script must work at the mark as well.
        for number in range(50):
            publish(keys=["browser"], args=[f"{number}:{'x' * 10_000}"])
        admin.config_set("maxmemory", admin.info("memory")["used_memory"] - 100_000)

        with pytest.raises(OutOfMemoryError):
            publish(keys=["browser"], args=["one more"])
        with pytest.raises(OutOfMemoryError):
            producer.lpush("browser", "one more")
        # What waits goes on waiting without a command that is refused.
        assert worker.blpop(["swarm:bell:browser"], 1) is not None

        done = 0
        while message := take(keys=["browser", "swarm:held:h"]):
            index = message.split(b":")[0].decode()
            result = f"celery-task-meta-{index}"
            commit(keys=["swarm:held:h", result, f"swarm:done:{index}"], args=[message, "{}"])
            done += 1
        assert done == 50
        assert len(list(admin.scan_iter("celery-task-meta-*", count=1000))) >= 50

        # The queue's memory is free again, so publishing goes on by itself.
        assert publish(keys=["browser"], args=["one more"]) == 1


def test_what_scripts_changed_is_there_after_a_restart(redis: RoleRedis) -> None:
    """Redis writes it down as a transaction, and reads it back as the user `default`."""
    with redis.connect("producer") as producer:
        # One change alone would be written as it is.
        twice = producer.register_script(2 * "redis.call('LPUSH', KEYS[1], ARGV[1]) ")
        twice(keys=["browser"], args=["kept"])
    with redis.connect("admin") as admin:
        before = admin.lrange("browser", 0, -1)
        redis.stop()
        redis.start()
        assert before[:2] == [b"kept", b"kept"]
        assert admin.lrange("browser", 0, -1) == before


def test_the_mark_is_four_fifths_of_the_memory(role_redis: RoleRedis) -> None:
    with role_redis.connect("admin") as admin:
        settings = admin.config_get("*")
    assert int(settings["maxmemory"]) == role_redis.mark == 64 * 1024**2 * 8 // 10
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"

"""What each user of the role's Redis must be able to do, and what must be refused.

Every row runs for real, on the ACL file that the role's own template makes. A refusal is NOPERM and
nothing else: an error of another kind would prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, OutOfMemoryError, ResponseError
from redis.retry import Retry

from tests.role_redis import QUEUES, USERS, RoleRedis, password_of

SERVICES = tuple(user for user in USERS if user != "admin")
#: kombu's list for messages of a higher priority.
URGENT = "browser\x06\x163"
#: Each key of the contract with a value of its type.
KEYS: dict[str, tuple[Any, ...]] = {
    "browser": ("RPUSH", "browser", "m1", "m2", "m3"),
    URGENT: ("RPUSH", URGENT, "m1", "m2", "m3"),
    "swarm:bell:browser": ("RPUSH", "swarm:bell:browser", "1"),
    "swarm:scheduled:browser": ("ZADD", "swarm:scheduled:browser", "1", "m1"),
    "swarm:held:h": ("RPUSH", "swarm:held:h", "m1", "m2"),
    "swarm:lease:h": ("SET", "swarm:lease:h", "1"),
    "swarm:holders": ("HSET", "swarm:holders", "h", "browser"),
    "swarm:deaths:t": ("RPUSH", "swarm:deaths:t", "killed"),
    "swarm:dead": ("HSET", "swarm:dead", "t", "{}"),
    "swarm:done:i": ("SET", "swarm:done:i", "1"),
    "swarm:sent:t": ("SET", "swarm:sent:t", "1"),
    "swarm:claim:k": ("SET", "swarm:claim:k", "i"),
    "swarm:revoked:i": ("SET", "swarm:revoked:i", "1"),
    "celery-task-meta-i": ("SET", "celery-task-meta-i", "{}"),
    "celery-taskset-meta-g": ("SET", "celery-taskset-meta-g", "{}"),
    "_kombu.binding.browser": ("SADD", "_kombu.binding.browser", "b"),
    "elsewhere": ("SET", "elsewhere", "1"),
}
EVENTS = "/0.celeryev/worker.heartbeat"
RESULT = "celery-task-meta-i"

#: Nobody but the admin.
NEVER = [
    "FLUSHALL",
    "FLUSHDB",
    "KEYS *",
    "SCAN 0",
    "RANDOMKEY",
    "DBSIZE",
    "CONFIG SET maxmemory 0",
    "CONFIG REWRITE",
    "ACL LIST",
    "ACL SETUSER worker +@all",
    "ACL WHOAMI",
    "SHUTDOWN NOSAVE",
    "SAVE",
    "BGREWRITEAOF",
    "REPLICAOF NO ONE",
    "SYNC",
    "MONITOR",
    "CLIENT LIST",
    "CLIENT KILL TYPE normal",
    "SCRIPT FLUSH",
    "FUNCTION FLUSH",
    "MODULE LIST",
    "SWAPDB 0 1",
    "MIGRATE 127.0.0.1 1 browser 0 1",
    "RENAME browser mine",
    "COPY browser mine",
    "DUMP browser",
    "SORT browser",
    "LRANGE browser 0 -1",
    "LREM browser 1 m1",
    "LTRIM browser 1 0",
    "DEL browser",
    "SET browser gone",
    "SET swarm:dead gone",
    "DEL swarm:dead",
    "DEL swarm:held:h",
    "GET elsewhere",
    "SET elsewhere 2",
    "SUBSCRIBE elsewhere",
    "PSUBSCRIBE *",
    "PSUBSCRIBE celery-task-meta-*",
    "PUBLISH elsewhere 1",
]

#: By user: what must work, then what must be refused.
TABLE: dict[str, tuple[list[str], list[str]]] = {
    "producer": (
        [
            "LPUSH browser m",
            f"LPUSH {URGENT} m",
            "LPUSH swarm:bell:browser 1",
            f"EXISTS browser {URGENT} browser\x06\x161 browser\x06\x169",
            "ZADD swarm:scheduled:browser 1 m",
            "SET swarm:sent:t 1 EX 60 NX",
            "SET swarm:claim:k i EX 60 NX",
            "GET swarm:claim:k",
            "GET swarm:done:i",
            "SET swarm:revoked:i 1 EX 60",
            "GET celery-task-meta-i",
            "MGET celery-task-meta-i celery-task-meta-j",
            "DEL celery-task-meta-i",
            "SUBSCRIBE celery-task-meta-i",
            f"PUBLISH {EVENTS} {{}}",
            "SET celery-taskset-meta-g.s 2 EX 60",
            "SETEX celery-taskset-meta-g 60 {}",
            "PUBLISH celery-taskset-meta-g {}",
            "DEL celery-taskset-meta-g.c",
            "SADD _kombu.binding.browser b",
            "SADD _kombu.binding_permanent.browser b",
            "SMEMBERS _kombu.binding.browser",
            "EVAL return(1) 0",
        ],
        [
            "BLPOP swarm:bell:browser 1",
            "BRPOP browser 1",
            "LPOP browser",
            "RPOP browser",
            "LMOVE browser swarm:held:h RIGHT LEFT",
            "RPUSH browser m",
            "ZRANGE swarm:scheduled:browser 0 -1",
            "ZREM swarm:scheduled:browser m1",
            "LRANGE swarm:held:h 0 -1",
            "LREM swarm:held:h 1 m1",
            "SET swarm:lease:h 1",
            "HGETALL swarm:holders",
            "HSET swarm:dead t {}",
            "HGETALL swarm:dead",
            "HDEL swarm:dead t",
            "RPUSH swarm:deaths:t x",
            "SET swarm:done:i 1",
            "SET celery-task-meta-i {}",
            "DEL _kombu.binding.browser",
            "SREM _kombu.binding.browser b",
            "INFO",
            "CONFIG GET *",
            "PSUBSCRIBE /0.celeryev/*",
            "PUBLISH /0.celery.pidbox {}",
        ],
    ),
    "worker": (
        [
            "BLPOP swarm:bell:browser swarm:bell:analysis 1",
            "DEL swarm:bell:browser",
            "RPOP browser",
            f"RPOP {URGENT}",
            "RPUSH browser m",
            "RPUSH swarm:held:h m",
            "LRANGE swarm:held:h 0 -1",
            "LREM swarm:held:h 1 m1",
            "SET swarm:lease:h 1 EX 60",
            "DEL swarm:lease:h",
            "HSET swarm:holders h browser",
            "HGET swarm:holders h",
            "HKEYS swarm:holders",
            "HDEL swarm:holders h",
            "HSET swarm:dead t {}",
            "RPUSH swarm:deaths:t x",
            "EXPIRE swarm:deaths:t 60",
            "LLEN swarm:deaths:t",
            "GET swarm:done:i",
            "SET swarm:done:i 1 EX 60",
            "EXISTS swarm:revoked:i",
            "SET celery-task-meta-i {} EX 60",
            f"PUBLISH {RESULT} {{}}",
            f"PUBLISH {EVENTS} {{}}",
            "ZRANGE swarm:scheduled:browser -inf 2 BYSCORE LIMIT 0 100",
            "ZREM swarm:scheduled:browser m1",
            # A task that submits another, and the parts of a chord.
            "LPUSH analysis m",
            "ZADD swarm:scheduled:analysis 1 m",
            "SET swarm:sent:t 1 EX 60 NX",
            "SET swarm:claim:k i EX 60 NX",
            "SUBSCRIBE celery-task-meta-i",
            "ZADD celery-taskset-meta-g.j 1 m",
            "ZCARD celery-taskset-meta-g.j",
            "INCRBY celery-taskset-meta-g.t 1",
            "SADD _kombu.binding.browser b",
            "SADD _kombu.binding_permanent.browser b",
        ],
        [
            "HGETALL swarm:dead",
            "HDEL swarm:dead t",
            "HGET swarm:dead t",
            "HSET elsewhere a b",
            "SREM _kombu.binding.browser b",
            "DEL _kombu.binding.browser",
            "INFO",
            "CONFIG GET *",
            "PSUBSCRIBE /0.celeryev/*",
            "PUBLISH /0.celery.pidbox {}",
            "SUBSCRIBE /0.celery.pidbox",
        ],
    ),
    "flower": (
        [
            "LLEN browser",
            f"LLEN {URGENT}",
            "EXISTS browser",
            "GET celery-task-meta-i",
            "PSUBSCRIBE /0.celeryev/*",
            "PUBLISH /0.celery.pidbox {}",
            "LLEN celeryev.4f2a",
            "DEL celeryev.4f2a",
            "INFO",
            "SADD _kombu.binding.celeryev b",
            "SREM _kombu.binding.celeryev b",
            "SMEMBERS _kombu.binding.celeryev",
            "ZADD _kombu.binding_deadlines 1 celeryev",
            "DEL _kombu.binding.celeryev",
        ],
        [
            "LINDEX browser 0",
            "LPUSH browser m",
            "RPOP browser",
            "BLPOP swarm:bell:browser 1",
            "LPUSH swarm:bell:browser 1",
            "LRANGE swarm:held:h 0 -1",
            "HGETALL swarm:dead",
            "ZADD swarm:scheduled:browser 1 m",
            "SUBSCRIBE celery-task-meta-i",
            "LLEN 4f2a.reply.celery.pidbox",
            "SET celery-task-meta-i {}",
            "DEL celery-task-meta-i",
            "SET swarm:done:i 1",
            "SET swarm:revoked:i 1",
            "CONFIG GET *",
        ],
    ),
    "scaler": (
        [
            "HKEYS swarm:holders",
            "HDEL swarm:holders h",
            "PTTL swarm:lease:h",
            "EXISTS swarm:lease:h",
            "LRANGE swarm:held:h 0 -1",
            "LREM swarm:held:h -1 m1",
            "RPUSH browser m",
            f"EXISTS browser {URGENT} browser\x06\x161 browser\x06\x169",
            "LLEN browser",
            "LPUSH swarm:bell:browser 1",
            "BLMOVE swarm:bell:browser swarm:bell:browser LEFT RIGHT 1",
            "BLMOVE swarm:bell:browser swarm:bell:browser LEFT RIGHT 1",
            "RPUSH swarm:deaths:t x",
            "EXPIRE swarm:deaths:t 60",
            "DEL swarm:deaths:t",
            "HSET swarm:dead t {}",
            "HVALS swarm:dead",
            "HDEL swarm:dead t",
            "ZRANGE swarm:scheduled:browser -inf 2 BYSCORE LIMIT 0 100",
            "ZREM swarm:scheduled:browser m1",
            "SET celery-task-meta-i {} EX 60",
            "DEL celery-task-meta-i",
            f"PUBLISH {RESULT} {{}}",
        ],
        [
            "RPOP browser",
            "LPOP browser",
            "LMOVE browser swarm:held:h RIGHT LEFT",
            "BLPOP swarm:bell:browser 1",
            "BLMOVE browser swarm:bell:browser LEFT RIGHT 1",
            "BLMOVE swarm:bell:browser browser LEFT RIGHT 1",
            "BRPOP browser 1",
            "RPUSH swarm:held:h m",
            "SET swarm:lease:h 1",
            "SET swarm:done:i 1",
            "SET swarm:sent:t 1",
            "GET celery-task-meta-i",
            "GET celery-taskset-meta-g",
            "SADD _kombu.binding.browser b",
            "SADD _kombu.binding_permanent.browser b",
            "SUBSCRIBE celery-task-meta-i",
            f"PUBLISH {EVENTS} {{}}",
            "PSUBSCRIBE /0.celeryev/*",
            "INFO",
            "CONFIG GET *",
        ],
    ),
    "exporter": (
        [
            "INFO ALL",
            "CONFIG GET *",
            "SLOWLOG LEN",
            "SLOWLOG GET 1",
            "LATENCY LATEST",
            "CLIENT SETNAME redis_exporter",
        ],
        [
            "LLEN browser",
            "GET celery-task-meta-i",
            "TYPE browser",
            "EXISTS browser",
            "HGETALL swarm:dead",
            "LPUSH browser m",
            "SLOWLOG RESET",
            "LATENCY RESET",
            "PUBLISH celery-task-meta-i {}",
            "SUBSCRIBE celery-task-meta-i",
            "EVALSHA 0 0",
            "EVAL return(1) 0",
            "SCRIPT LOAD return(1)",
            "MULTI",
        ],
    ),
}


@pytest.fixture
def redis(role_redis: RoleRedis) -> Iterator[RoleRedis]:
    """Every kind of key, with something in it."""
    with role_redis.connect("admin") as admin:
        admin.flushall()
        for command in KEYS.values():
            admin.execute_command(*command)
    yield role_redis
    with role_redis.connect("admin") as admin:
        admin.config_set("maxmemory", role_redis.mark)
        admin.flushall()


def refusal(redis: RoleRedis, user: str, row: str) -> NoPermissionError | None:
    """NOPERM, or None when it was done; an error of another kind is the test's own."""
    # RESP3 answers a subscription on the side.
    with Redis.from_url(redis.url(user), socket_timeout=5, protocol=2) as connection:
        try:
            # By single spaces: the control characters in kombu's names count as white space too.
            connection.execute_command(*row.split(" "))
        except NoPermissionError as exc:
            return exc
    return None


def test_every_user_of_the_role_is_in_the_table() -> None:
    assert set(TABLE) == set(SERVICES)


@pytest.mark.parametrize("user", SERVICES)
def test_what_a_user_needs_works(redis: RoleRedis, user: str) -> None:
    may, _ = TABLE[user]
    refused = {row: exc for row in may if (exc := refusal(redis, user, row)) is not None}
    assert refused == {}


@pytest.mark.parametrize("user", SERVICES)
def test_what_is_another_s_work_is_refused(redis: RoleRedis, user: str) -> None:
    _, may_not = TABLE[user]
    assert [row for row in may_not + NEVER if refusal(redis, user, row) is None] == []
    with redis.connect("admin") as admin:
        assert admin.dbsize() == len(KEYS)


def test_the_rows_that_are_refused_are_right_but_for_the_user(redis: RoleRedis) -> None:
    """The admin may: so NOPERM above is about rights, not about a word that Redis does not know."""
    blocking = {"SYNC", "MONITOR"}
    with redis.connect("admin") as admin:
        for row in {row for _, rows in TABLE.values() for row in rows} | set(NEVER):
            if row.split(" ")[0] not in blocking:
                assert admin.execute_command("ACL", "DRYRUN", "admin", *row.split(" ")) == b"OK"


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (None, None),
        ("default", ""),
        ("worker", password_of("flower")),
        *((None, password_of(user)) for user in USERS),
        *(("default", password_of(user)) for user in USERS),
    ],
)
def test_nobody_gets_in_without_a_name_and_its_own_password(
    role_redis: RoleRedis, user: str | None, password: str | None
) -> None:
    once = Retry(NoBackoff(), 0)
    nobody = Redis(port=role_redis.port, username=user, password=password, retry=once)
    with nobody, pytest.raises(AuthenticationError):
        nobody.ping()


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("user", [user for user in SERVICES if user != "exporter"])
def test_redis_py_connects_in_either_protocol(
    role_redis: RoleRedis, user: str, protocol: int
) -> None:
    with role_redis.connect("admin") as admin:
        admin.acl_log_reset()
        with Redis.from_url(f"{role_redis.url(user)}?protocol={protocol}") as connection:
            assert connection.ping()
            connection.select(1)
        assert admin.acl_log() == []


@pytest.mark.parametrize("user", ["producer", "worker", "flower", "scaler"])
def test_a_script_gives_its_caller_no_right_that_he_has_not(redis: RoleRedis, user: str) -> None:
    with redis.connect(user) as connection:
        script = connection.register_script("return redis.call(unpack(ARGV))")
        assert script(args=["PING"])
        for row in ("FLUSHALL", "GET elsewhere", "DEL browser", "SET browser gone"):
            with pytest.raises(ResponseError, match="user executing the script can't"):
                script(args=row.split(" "))
        for name in ("browser", "elsewhere"):
            assert redis.connect("admin").exists(name)


def test_a_script_may_be_told_of_the_keys_that_its_caller_works_with(redis: RoleRedis) -> None:
    """Redis wants read and write on them, whatever the script does."""
    told = {
        "producer": ("browser", URGENT, "swarm:bell:browser", "swarm:sent:t", RESULT),
        "worker": tuple(name for name in KEYS if name != "elsewhere"),
        "flower": ("_kombu.binding.celeryev", "_kombu.binding_deadlines"),
        "scaler": ("browser", URGENT, "swarm:held:h", "swarm:dead", RESULT),
    }
    for user, names in told.items():
        with redis.connect(user) as connection:
            assert connection.register_script("return #KEYS")(keys=names) == len(names)
            with pytest.raises(NoPermissionError):
                connection.register_script("return #KEYS")(keys=["elsewhere"])


def test_queues_of_no_pool_are_nobody_s(redis: RoleRedis) -> None:
    for user in ("producer", "worker", "scaler"):
        assert refusal(redis, user, "LPUSH celery m")
        assert not any(refusal(redis, user, f"LPUSH {queue} m") for queue in QUEUES)


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

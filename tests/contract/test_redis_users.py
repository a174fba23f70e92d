"""What each user of the role's Redis must be able to do, and what must be refused.

Every row runs for real, on the ACL file that the role's own template makes. A refusal is NOPERM and
nothing else: an error of another kind would prove nothing.
"""

from __future__ import annotations

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.retry import Retry

from swarm.delivery.find import waits
from tests.contract.redis_keys import KEYS, RESULT, URGENT
from tests.contract.redis_rights import NEVER, RIGHTS
from tests.role_redis import QUEUES, USERS, RoleRedis, password_of

SERVICES = tuple(user for user in USERS if user != "admin")


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
    assert set(RIGHTS) == set(SERVICES)


@pytest.mark.parametrize("user", SERVICES)
def test_what_a_user_needs_works(redis: RoleRedis, user: str) -> None:
    may = RIGHTS[user].may
    refused = {row: exc for row in may if (exc := refusal(redis, user, row)) is not None}
    assert refused == {}


@pytest.mark.parametrize("user", SERVICES)
def test_what_is_another_s_work_is_refused(redis: RoleRedis, user: str) -> None:
    may_not = RIGHTS[user].may_not + NEVER
    assert [row for row in may_not if refusal(redis, user, row) is None] == []
    with redis.connect("admin") as admin:
        assert admin.dbsize() == len(KEYS)


def test_the_rows_that_are_refused_are_right_but_for_the_user(redis: RoleRedis) -> None:
    """The admin may: so NOPERM above is about rights, not about a word that Redis does not know."""
    blocking = {"SYNC", "MONITOR"}
    with redis.connect("admin") as admin:
        for row in {row for rights in RIGHTS.values() for row in rights.may_not} | set(NEVER):
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


def test_a_task_is_found_by_the_scalers_user(redis: RoleRedis) -> None:
    with redis.connect("scaler") as client:
        assert not waits(client, "absent", QUEUES)

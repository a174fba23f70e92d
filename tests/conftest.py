"""Fixtures and settings that every kind of test shares."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.loopback import REDIS
from tests.programs import need
from tests.role_redis import RoleRedis

settings.register_profile(
    "swarm",
    # A loaded machine makes one example slow, which says nothing about the code.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=100,
)
# `pytest tests/unit/test_fleet_properties.py --hypothesis-profile=thorough`
settings.register_profile("thorough", settings.get_profile("swarm"), max_examples=5000)
settings.load_profile("swarm")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the variables of whoever runs it."""
    for name in tuple(os.environ):
        if name.startswith(("SWARM_", "CELERY_")) or name in {
            "REDIS_URL",
            "REDIS_FALLBACK_URL",
            "REDIS_FALLBACK_ENABLED",
            "CREDENTIALS_DIRECTORY",
            "NOTIFY_SOCKET",
            "SSH_ORIGINAL_COMMAND",
        }:
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def role_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoleRedis]:
    """A Redis as the role deploys it, with a URL for each of its users."""
    need(REDIS, "redis-tools")
    redis = RoleRedis(tmp_path_factory.mktemp("role-redis"))
    redis.start()
    yield redis
    redis.stop()

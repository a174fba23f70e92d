"""Fixtures and settings that every kind of test shares."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "swarm",
    # A loaded machine makes one example slow, which says nothing about the code.
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=100,
)
settings.load_profile("swarm")


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the variables of whoever runs it."""
    for name in tuple(os.environ):
        if name.startswith(("SWARM_", "CELERY_")) or name in {
            "REDIS_URL",
            "CREDENTIALS_DIRECTORY",
            "NOTIFY_SOCKET",
            "SSH_ORIGINAL_COMMAND",
        }:
            monkeypatch.delenv(name)

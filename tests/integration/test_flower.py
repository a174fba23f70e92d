"""Queue lengths from a real Flower that runs our Celery app."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.hosted import HostedRedis, make_certificates
from swarm.scaler.adapters.flower import FlowerQueues
from swarm.scaler.model import Unknown
from swarm.settings import FlowerSettings
from tests.integration.flower_process import Flower
from tests.integration.stage import Stage
from tests.loopback import PASSWORD, free_port


@pytest.fixture
async def queues(flower: Flower) -> AsyncIterator[FlowerQueues]:
    async with FlowerQueues(FlowerSettings(url=flower.url), Flower.auth) as queues:
        yield queues


async def test_the_lengths_are_those_of_redis(shared: Stage, queues: FlowerQueues) -> None:
    """Without a single worker: the app's own queues are listed."""
    assert await queues.waiting(["browser", "analysis"]) == {"browser": 0, "analysis": 0}
    for _ in range(3):
        shared.client.submit("analysis", {"html": "<p>x</p>"})
    assert await queues.waiting(["browser", "analysis"]) == {"browser": 0, "analysis": 3}


async def test_a_queue_of_nobody_is_unknown(queues: FlowerQueues) -> None:
    assert isinstance((await queues.waiting(["other"]))["other"], Unknown)


async def test_a_wrong_password_is_said_as_such(flower: Flower) -> None:
    async with FlowerQueues(FlowerSettings(url=flower.url), "swarm:wrong") as queues:
        answer = await queues.waiting(["browser"])
    assert answer == {
        "browser": Unknown("Flower refused the password: check the credential flower-auth")
    }


async def test_a_flower_that_is_away_is_unknown() -> None:
    settings = FlowerSettings(url=f"http://127.0.0.1:{free_port()}")
    async with FlowerQueues(settings, Flower.auth) as queues:
        answer = await queues.waiting(["browser"])
    length = answer["browser"]
    assert isinstance(length, Unknown)
    assert length.reason.startswith("Flower is away")


async def test_a_certificate_that_is_not_trusted_is_said_as_such(
    shared: Stage, tmp_path: Path
) -> None:
    tls = make_certificates(tmp_path / "certificates").server_context(ask_clients=False)
    with HostedRedis(("127.0.0.1", shared.redis.port), tls=tls) as service:
        settings = FlowerSettings(url=f"https://127.0.0.1:{service.port}")
        async with FlowerQueues(settings, Flower.auth) as queues:
            answer = await queues.waiting(["browser"])
    length = answer["browser"]
    assert isinstance(length, Unknown)
    assert "certificate" in length.reason


async def test_a_broker_that_is_away_makes_the_lengths_unknown(
    shared: Stage, queues: FlowerQueues
) -> None:
    process = shared.redis.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        answer = await queues.waiting(["browser"])
    finally:
        process.send_signal(signal.SIGCONT)
    assert isinstance(answer["browser"], Unknown)


async def test_the_authority_of_the_broker_s_url_is_flower_s_too(
    shared: Stage, tmp_path: Path
) -> None:
    """Flower itself reads no `ssl_ca_certs` from a URL."""
    certificates = make_certificates(tmp_path / "certificates")
    tls = certificates.server_context(ask_clients=False)
    with HostedRedis(("127.0.0.1", shared.redis.port), tls=tls) as hosted:
        url = hosted.url("", PASSWORD, ssl_ca_certs=certificates.authority)
        flower = Flower(shared, environ={"REDIS_URL": url})
        flower.start()
        try:
            async with FlowerQueues(FlowerSettings(url=flower.url), Flower.auth) as queues:
                assert isinstance((await queues.waiting(["browser"]))["browser"], int)
        finally:
            flower.stop()

"""What a process counts of its own requests, against what the stand-in for a service counts."""

from __future__ import annotations

import os

import pytest
import redis.asyncio
from redis import Redis

from lab.hosted import Certificates, HostedRedis
from swarm.brokers.counting import count_requests, requests
from tests.hosted_client import connect
from tests.loopback import PASSWORD


@pytest.fixture(autouse=True)
def _counting() -> None:
    count_requests()
    count_requests()


def counted(service: HostedRedis) -> int:
    return requests.total(("127.0.0.1", service.port))


def test_every_request_is_counted_as_the_service_counts(
    service: HostedRedis, certificates: Certificates
) -> None:
    with connect(service, certificates) as client:
        client.set("k", "v")
        client.lpush("l", "1")
        client.blpop(["l"], timeout=1)
        client.eval("return 1", 0)
        with client.pipeline(transaction=True) as pipeline:
            pipeline.get("k")
            pipeline.llen("l")
            pipeline.execute()
        with client.pipeline(transaction=False) as pipeline:
            pipeline.get("k")
            pipeline.llen("l")
            pipeline.execute()
        with client.pubsub() as subscription:
            subscription.subscribe("channel")
            subscription.get_message(timeout=0.5)
            client.publish("channel", "x")
            subscription.get_message(timeout=0.5)
        with pytest.raises(redis.ResponseError):
            client.execute_command("LPUSH", "k", "v")
    assert service.used > 15
    assert counted(service) == service.used


async def test_so_are_those_of_asyncio(service: HostedRedis, certificates: Certificates) -> None:
    url = service.url("", PASSWORD, ssl_ca_certs=certificates.authority)
    client = redis.asyncio.Redis.from_url(url, retry=None, protocol=2, driver_info=None)
    async with client:
        await client.set("k", "v")
        async with client.pipeline(transaction=True) as pipeline:
            pipeline.get("k")
            pipeline.get("k")
            await pipeline.execute()
    assert counted(service) == service.used


def test_what_was_told_is_not_told_again(client: Redis, service: HostedRedis) -> None:
    place = ("127.0.0.1", service.port)
    client.ping()
    told = requests.take(place)
    assert told == service.used
    assert requests.take(place) == 0
    requests.give_back(place, told)
    assert requests.take(place) == told


def test_a_forked_process_counts_its_own(client: Redis, service: HostedRedis) -> None:
    client.ping()
    assert counted(service) > 0
    if not (child := os.fork()):
        os._exit(counted(service))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

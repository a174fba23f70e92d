"""Two brokers: the stand-in for a hosted one, and a Redis beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from kombu import pools
from redis import Redis

from lab.hosted import Certificates, HostedRedis
from swarm.brokers import Broker, BrokerName, Brokers, parse_broker
from swarm.celery_app import celery_configuration
from swarm.delivery.app import Brokerage, DeliveryCelery
from swarm.delivery.results import ResultBackend
from tests.builders import ANALYSIS, make_settings
from tests.loopback import PASSWORD, REDIS, RedisServer
from tests.programs import need

SETTINGS = make_settings(
    pools={
        "analysis": ANALYSIS,
        "analysis-fallback": {**ANALYSIS, "broker": "fallback", "metrics_port_base": 9400},
    }
)


@dataclass
class TwoBrokers:
    """The primary is `service`, whose data are in `behind`."""

    service: HostedRedis
    behind: RedisServer
    beside: RedisServer
    brokers: Brokers

    def app(self, on_uncertain: Literal["duplicate", "hold"] = "duplicate") -> DeliveryCelery:
        """A producer's, that knows of nothing yet."""

        def configuration(broker: Broker | None) -> dict[str, Any]:
            if broker is None:
                return {}
            return celery_configuration(SETTINGS, broker)

        brokerage = Brokerage(self.brokers, configuration(self.brokers.fallback), on_uncertain)
        app = DeliveryCelery("producer", set_as_current=False, read_brokerage=lambda: brokerage)
        app.config_from_object(configuration(self.brokers.primary))
        return app

    def redis(self, name: BrokerName) -> Redis:
        return (self.behind if name == "primary" else self.beside).connect()

    def waiting(self, name: BrokerName) -> list[str]:
        """Ids of the tasks in the queue, the oldest first."""
        with self.redis(name) as redis:
            messages = redis.lrange("analysis", 0, -1)
        return [json.loads(message)["headers"]["id"] for message in reversed(messages)]

    def commit(self, name: BrokerName, task_id: str, value: object, state: str = "SUCCESS") -> None:
        """Store a result, and tell those who wait for it, as a worker's commit does."""
        encoder = ResultBackend(app=self.app(), url=self.beside.url)
        meta = encoder._get_result_meta(encoder.encode_result(value, state), state, None, None)
        key = encoder.get_key_for_task(task_id)
        answer = encoder.encode({**meta, "task_id": task_id})
        with self.redis(name) as redis:
            redis.set(key, answer)
            redis.publish(key, answer)
            for mailbox in redis.smembers(b"swarm:waiting:" + key):
                redis.rpush(mailbox, key + b"\n" + answer.encode())


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, RedisServer]]:
    need(REDIS, "redis-tools")
    with (
        RedisServer(tmp_path_factory.mktemp("behind")) as behind,
        RedisServer(tmp_path_factory.mktemp("beside")) as beside,
    ):
        yield behind, beside


@pytest.fixture
def two(
    servers: tuple[RedisServer, RedisServer], certificates: Certificates
) -> Iterator[TwoBrokers]:
    behind, beside = servers
    for server in servers:
        with server.connect() as redis:
            redis.flushall()
            redis.config_set("maxmemory", 0)
    tls = certificates.server_context(ask_clients=False)
    with HostedRedis(("127.0.0.1", behind.port), tls=tls) as service:
        url = service.url("", PASSWORD, ssl_ca_certs=certificates.authority)
        primary = parse_broker("primary", url, variable="REDIS_URL")
        fallback = parse_broker("fallback", beside.url, variable="REDIS_FALLBACK_URL")
        yield TwoBrokers(service, behind, beside, Brokers(primary, fallback))
        # kombu's are those of the process, by host and port: the next service may get this port.
        pools.reset()


#: The ways in which a primary can be away, and how to bring that about.
STRIKES: dict[str, Callable[[HostedRedis], None]] = {
    "refused": lambda service: service.reach("refused"),
    "silent": lambda service: service.reach("silent"),
    "slow": lambda service: service.set(slow_s=5),
    "limited": lambda service: service.reach_limit(),
    "cut": lambda service: service.set(cuts=10_000),
}

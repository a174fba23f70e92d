"""What a producer is told when the broker breaks off in the middle of a publish."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from swarm.brokers import Broker, Brokers
from swarm.celery_app import celery_configuration
from swarm.client import Client
from swarm.delivery.app import Brokerage, DeliveryCelery
from swarm.errors import BrokerAwayError, ConfigError
from tests.builders import make_settings
from tests.loopback import PASSWORD, REDIS, RedisServer
from tests.programs import need


class Proxy:
    """Passes everything on, but no answer to a publish."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target_port))
            self._open += [client, server]
            mute = threading.Event()
            for source, sink, asks in ((client, server, True), (server, client, False)):
                thread = threading.Thread(
                    target=self._pump, args=(source, sink, mute), kwargs={"asks": asks}
                )
                self._threads.append(thread)
                thread.start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, mute: threading.Event, *, asks: bool
    ) -> None:
        while True:
            try:
                chunk = source.recv(1 << 16)
                if not chunk:
                    return
                if asks and b"LPUSH" in chunk:
                    mute.set()
                if asks or not mute.is_set():
                    sink.sendall(chunk)
            except OSError:
                return

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
            finally:
                each.close()
        for thread in self._threads:
            thread.join(timeout=5)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    need(REDIS, "redis-tools")
    with RedisServer(tmp_path) as server:
        yield server


def make_app(url: str) -> DeliveryCelery:
    broker = Broker("primary", url)
    app = DeliveryCelery(
        "test", set_as_current=False, read_brokerage=lambda: Brokerage(Brokers(broker))
    )
    app.conf.update(celery_configuration(make_settings(), broker))
    return app


def test_a_lost_answer_is_not_called_nothing_queued(redis: RedisServer) -> None:
    proxy = Proxy(redis.port)
    app = make_app(f"redis://:{PASSWORD}@127.0.0.1:{proxy.port}/0")
    try:
        with pytest.raises(BrokerAwayError, match="may or may not be queued") as caught:
            Client(app).submit("browser", {"url": "http://h/", "actions": [{"kind": "text"}]})
        with redis.connect() as direct:
            [message] = direct.lrange("browser", 0, -1)
        told = re.search(r"task ([0-9a-f-]{36}) ", str(caught.value))
        assert told is not None
        assert told[1].encode() in message
    finally:
        app.close()
        proxy.close()


def submit(redis: RedisServer, url: str) -> None:
    app = make_app(url)
    try:
        Client(app).submit("browser", {"url": "http://h/", "actions": [{"kind": "text"}]})
    finally:
        app.close()
        with redis.connect() as direct:
            assert direct.exists("browser") == 0


def test_a_task_that_a_full_broker_refuses_is_called_not_queued(redis: RedisServer) -> None:
    with redis.connect() as direct:
        direct.config_set("maxmemory", 1)
    with pytest.raises(BrokerAwayError, match=r"nothing was queued: .*memory is full"):
        submit(redis, redis.url)


def test_who_may_not_publish_is_told_which_variable_is_wrong(redis: RedisServer) -> None:
    with redis.connect() as direct:
        direct.acl_setuser("reader", enabled=True, passwords=["+p"], categories=["+@read"])
    with pytest.raises(ConfigError, match=r"^REDIS_URL: got .*(NOPERM|no permissions).* who may"):
        submit(redis, f"redis://reader:p@127.0.0.1:{redis.port}/0")

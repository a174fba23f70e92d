"""Pages through the egress proxy: a real squid with the role's configuration, and Chromium."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from swarm.browse.directory_store import DirectoryStore
from swarm.browse.engine import Engine
from swarm.browse.errors import ErrorCode, JobError
from swarm.browse.payload import parse_browser_job
from swarm.browse.result import JobResult
from swarm.browse.secrets import Secrets
from swarm.browse.visit import Deployment
from swarm.settings import BrowserSettings
from tests.integration.pages import Site
from tests.name_server import NameServer
from tests.programs import CHROMIUM, SQUID, need
from tests.role_egress import RoleEgress

NAME_SERVER = "127.53.0.53"
SECRETS = "other-way: {type: proxy, server: 'http://127.0.0.1:9'}"


class Listener:
    """Where nobody may get to; counts who does."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return
            self.connections += 1

    def close(self) -> None:
        self._socket.close()


class Desk:
    """An engine behind the proxy."""

    def __init__(self, directory: Path, proxy: RoleEgress) -> None:
        settings = BrowserSettings(sandbox=False, allow_evaluate=True, proxy=proxy.url)
        secrets = Secrets.parse(SECRETS, where="secrets")
        store = DirectoryStore(directory, host="here")
        self.engine = Engine(Deployment(settings, store, secrets))
        self.engine.start()

    def open(self, url: str, **fields: Any) -> JobResult:
        return self.engine.run(
            parse_browser_job({"url": url, "actions": [{"kind": "text"}], **fields})
        )

    def refused(self, url: str, **fields: Any) -> ErrorCode:
        with pytest.raises(JobError) as caught:
            self.open(url, **fields)
        return caught.value.code


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Iterator[Desk]:
    need(CHROMIUM, "chromium-headless-shell")
    need(SQUID, "squid")
    turns = itertools.cycle(["8.8.8.8", "127.0.0.1"])
    names = {
        "private.test": lambda: ["127.0.0.1"],
        "mixed.test": lambda: ["8.8.8.8", "127.0.0.1"],
        "mixed-first.test": lambda: ["127.0.0.1", "8.8.8.8"],
        "turns.test": lambda: [next(turns)],
    }
    proxy = RoleEgress(
        tmp_path_factory.mktemp("egress"),
        allowed=[{"address": "127.0.0.1", "port": site.server_port}],
        nameservers=[NAME_SERVER],
    )
    with NameServer(NAME_SERVER, names):
        proxy.start()
        desk = Desk(tmp_path_factory.mktemp("artifacts"), proxy)
        yield desk
        desk.engine.stop()
        proxy.stop()


def test_what_is_allowed_is_opened_through_the_proxy(desk: Desk, site: Site) -> None:
    result = desk.open(site.url("/page/2"))
    assert result.http_status == 200
    assert desk.open(f"http://private.test:{site.server_port}/page/2").status == "ok"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "0x7f.1",
        "0177.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "0.0.0.0",
        "private.test",
        "mixed.test",
        "mixed-first.test",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_is_not_everybodys_is_not_reached(
    desk: Desk, listener: Listener, scheme: str, host: str
) -> None:
    assert desk.refused(f"{scheme}://{host}:{listener.port}/") is ErrorCode.URL_BLOCKED
    assert listener.connections == 0


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "169.254.169.254", "192.168.1.1", "172.31.0.1", "100.64.0.1", "[fd00::1]",
     "[fe80::1]", "[::ffff:10.0.0.1]", "198.18.0.1", "224.0.0.1", "255.255.255.255"],
)  # fmt: skip
def test_networks_that_are_not_everybodys_are_refused_at_once(desk: Desk, host: str) -> None:
    limits = {"deadline_s": 10}
    assert desk.refused(f"http://{host}/", limits=limits) is ErrorCode.URL_BLOCKED


def test_a_redirect_leads_nowhere_else(desk: Desk, site: Site, listener: Listener) -> None:
    for scheme in ("http", "https"):
        target = f"{scheme}://127.0.0.1:{listener.port}/"
        site.redirects["/away"] = target
        assert desk.refused(site.url("/away")) is ErrorCode.URL_BLOCKED
    assert listener.connections == 0


def test_what_a_page_asks_for_by_itself_is_held_to_the_same(
    desk: Desk, site: Site, listener: Listener
) -> None:
    script = """async (port) => { const tries = [
        fetch(`http://127.0.0.1:${port}/`, {mode: 'no-cors'}),
        fetch(`http://mixed.test:${port}/`, {mode: 'no-cors'}),
        new Promise((resolve, reject) => {
          const socket = new WebSocket(`ws://127.0.0.1:${port}/`);
          socket.onopen = resolve; socket.onerror = reject; }) ];
      return (await Promise.allSettled(tries)).map(outcome => outcome.status); }"""
    desk.open(
        site.url("/page/2"),
        steps=[{"kind": "evaluate", "script": script, "argument": listener.port}],
    )
    assert listener.connections == 0


def test_a_name_that_changes_its_address_reaches_nothing(desk: Desk, listener: Listener) -> None:
    limits = {"deadline_s": 3}
    for _ in range(3):
        desk.refused(f"http://turns.test:{listener.port}/", limits=limits)
    assert listener.connections == 0


def test_a_port_of_another_protocol_is_refused(desk: Desk) -> None:
    assert desk.refused("http://8.8.8.8:26/") is ErrorCode.URL_BLOCKED
    assert desk.refused("https://8.8.8.8:26/") is ErrorCode.URL_BLOCKED


def test_an_unknown_name_is_called_so(desk: Desk) -> None:
    assert desk.refused("http://nowhere.test/") is ErrorCode.DNS
    assert desk.refused("https://nowhere.test/") is ErrorCode.DNS


def test_a_job_brings_no_proxy_of_its_own(desk: Desk, site: Site) -> None:
    network = {"proxy": "other-way"}
    assert desk.refused(site.url("/page/2"), network=network) is ErrorCode.INVALID

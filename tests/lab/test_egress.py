"""On the deployed lab: pages and workers reach what they may, and nothing else sees a byte."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.lab.conftest import Lab

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

HOSTS = ("control", "worker1", "worker2")
WORKERS = ("worker1", "worker2")
CONTROL = "10.77.0.10"
NAME_SERVER = "127.53.0.53"
SEEN = "/run/swarm-test-seen"
PROGRAMS = Path(__file__).parent / "programs"
TESTS = PROGRAMS.parents[1]
#: As the worker's user, in what the unit allows: whoever breaks out of Chromium has no more.
TRY = """
import socket, sys
for host in sys.argv[1:]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(family, kind) as trying:
            trying.settimeout(3)
            try:
                trying.connect((host, 7777))
                trying.send(b"x")
            except TimeoutError:
                print(host, "timed out")
            except OSError as exc:
                print(host, "refused")
            else:
                print(host, "reached")
"""


@contextmanager
def running(
    lab: Lab, host: str, name: str, *words: str, modules: tuple[str, ...] = ()
) -> Iterator[None]:
    """One of our programs as a transient unit, with the modules of tests/ that it imports."""
    unit = f"swarm-test-{name}"
    place = f"/run/{unit}"
    files = {f"{name}.py": PROGRAMS / f"{name}.py"}
    files |= {f"tests/{module}.py": TESTS / f"{module}.py" for module in modules}
    for path, source in files.items():
        lab.on(host, f"mkdir -p {(Path(place) / path).parent}")
        text = base64.b64encode(source.read_bytes()).decode()
        lab.on(host, f"echo {text} | base64 -d > {place}/{path}")
    command = f"/usr/bin/python3 {place}/{name}.py {shlex.join(words)}"
    lab.on(host, f"systemd-run -q --collect --unit={unit} {command}")
    try:
        yield
    finally:
        lab.on(host, f"systemctl stop {unit}; rm -rf {place} {SEEN}")


@pytest.fixture(scope="module")
def guarded(_lab: Lab) -> Iterator[Lab]:
    """The lab with witnesses on all hosts, a redirector, and a name server that deceives."""
    with ExitStack() as stack:
        for host in HOSTS:
            stack.enter_context(running(_lab, host, "witness", SEEN))
        stack.enter_context(running(_lab, "control", "redirector", "8090"))
        for host in WORKERS:
            stack.enter_context(running(_lab, host, "names", modules=("name_server",)))
            stack.enter_context(asking(_lab, host))
        yield _lab


@contextmanager
def asking(lab: Lab, host: str) -> Iterator[None]:
    """That host's resolver asks our name server."""
    before = lab.on(host, "cat /etc/resolv.conf")

    def use(text: str) -> None:
        lab.on(
            host,
            f"echo {shlex.quote(text)} > /etc/resolv.conf; "
            "systemctl start swarm-egress-resolve.service; systemctl restart swarm-egress.service",
        )

    use(f"nameserver {NAME_SERVER}")
    try:
        yield
    finally:
        use(before)


def seen(lab: Lab) -> list[str]:
    """Who got through, on any host."""
    return [line for host in HOSTS for line in lab.on(host, f"cat {SEEN}").splitlines()]


def codes(lab: Lab, *urls: str) -> dict[str, str]:
    """What became of opening each, as error codes."""
    payloads: list[dict[str, Any]] = [
        {"url": url, "actions": [{"kind": "text"}], "limits": {"deadline_s": 20}} for url in urls
    ]
    ids = [lab.client.submit("browser", payload) for payload in payloads]
    found = {}
    for url, result in zip(urls, lab.results(ids), strict=True):
        assert isinstance(result.value, dict), result
        found[url] = (result.value["error"] or {"code": result.state})["code"]
    return found


def test_the_witness_sees_whoever_is_not_held(guarded: Lab) -> None:
    """Without this the others could not fail."""
    guarded.on("worker1", f"python3 -c {shlex.quote(TRY)} {CONTROL} 127.0.0.1 | grep reached")
    assert len(seen(guarded)) == 4
    for host in HOSTS:
        guarded.on(host, f"truncate -s 0 {SEEN}")


def test_no_page_reaches_an_address_that_is_not_everybodys(guarded: Lab) -> None:
    hosts = (
        CONTROL, "127.0.0.1", "localhost", "10.77.0.11", "169.254.169.254", "[::1]",
        f"[::ffff:{CONTROL}]", "0x7f000001", "2130706433", "0177.0.0.1", "172609546",
        "private.test", "local.test", "mixed.test", "mixed-first.test",
    )  # fmt: skip
    urls = [f"http://{host}:7777/" for host in hosts]
    urls += [f"https://{host}:7777/" for host in (CONTROL, "127.0.0.1", "mixed.test")]
    urls += [
        f"http://{CONTROL}:8090/?http://{host}:7777/"
        for host in ("127.0.0.1", "169.254.169.254", "[::ffff:10.77.0.10]", "private.test")
    ]

    found = codes(guarded, *urls)

    assert found == dict.fromkeys(urls, "URL_BLOCKED")
    assert seen(guarded) == []


def test_a_name_that_changes_its_address_reaches_nothing(guarded: Lab) -> None:
    urls = [f"http://turns.test:7777/{number}" for number in range(6)]
    found = codes(guarded, *urls)
    assert "done" not in found.values()
    assert seen(guarded) == []


def test_a_socket_of_the_workers_user_gets_nowhere(guarded: Lab) -> None:
    assert_worker_is_held(guarded)


def assert_worker_is_held(guarded: Lab) -> None:
    targets = f"{CONTROL} 10.77.0.12 127.0.0.1 198.41.0.4 ::1"
    told = guarded.on(
        "worker1",
        f"runuser -u swarm-worker -- python3 -c {shlex.quote(TRY)} {targets}",
    ).splitlines()
    assert told == [f"{host} refused" for host in targets.split() for _ in range(2)]
    assert seen(guarded) == []


def test_the_proxy_itself_is_held_to_public_addresses(guarded: Lab) -> None:
    """What squid believes of a name is not all that stands between it and the network."""
    targets = f"{CONTROL} 10.77.0.12 127.0.0.1 ::1"
    told = guarded.on(
        "worker1",
        f"runuser -u swarm-egress -- python3 -c {shlex.quote(TRY)} {targets}",
    ).splitlines()
    assert told == [f"{host} refused" for host in targets.split() for _ in range(2)]
    assert seen(guarded) == []


def test_a_filter_that_was_flushed_comes_back(guarded: Lab) -> None:
    guarded.on("worker1", "nft flush ruleset && systemctl start swarm-egress-resolve.service")
    assert_worker_is_held(guarded)


def test_what_was_refused_is_in_the_journal(guarded: Lab) -> None:
    since = guarded.now()
    url = f"http://{CONTROL}:7777/refused"
    assert codes(guarded, url) == {url: "URL_BLOCKED"}
    lines = [line for host in WORKERS for line in guarded.journal(host, "swarm-egress", since)]
    assert any(f"refused GET {url}" in line for line in lines), lines

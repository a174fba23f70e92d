"""The daemon itself while what it depends on answers nonsense: what it does not do."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import asyncssh
import psutil
import pytest
import yaml

from tests.integration.scaler_process import ScalerProcess, Start
from tests.integration.stage import Stage
from tests.loopback import free_port, wait_until
from tests.stub_systemctl import StubSystemctl
from tests.wrong_flower import FAULTS, Answer, WrongFlower, lengths, row


def asked(systemctl: StubSystemctl) -> list[str]:
    """What was asked of systemd besides how it is."""
    return [call for call in systemctl.calls if " show " not in call]


def turns(scaler: ScalerProcess, count: int) -> None:
    """Wait for so many more."""
    before = scaler.notify.told.count("WATCHDOG=1")
    wait_until(lambda: scaler.notify.told.count("WATCHDOG=1") >= before + count, what="turns")


def is_logged(scaler: ScalerProcess, what: str, count: int = 1) -> bool:
    return scaler.log.count(what) >= count


def leave(scaler: ScalerProcess) -> None:
    scaler.process.send_signal(signal.SIGTERM)
    assert scaler.process.wait(20) == 0
    assert "Traceback" not in scaler.log


#: Faults of the way to it. What is wrong with a figure alone, tests/contract tells of.
IN_HTTP = (
    *("401", "500", "html", "redirect to a login page", "nothing", "silence"),
    *("half, then silence", "half, then the end", "garbage", "a header without end"),
    *("a body without end", "half a gigabyte, packed", "an absent queue", "two lengths", "escapes"),
)


def has_asked(flower: WrongFlower, count: int) -> bool:
    return len(flower.asked) >= count


def test_no_answer_of_flower_starts_stops_or_ends_anything(
    stage: Stage, systemctl: StubSystemctl, start: Start
) -> None:
    """One fault after the other, with an instance that runs, and in between none."""
    systemctl.add("celery-browser@1.service")
    systemctl.add("celery-analysis@1.service")
    right = Answer(lengths(row(0), row(0, "analysis")))
    stage.write_config(flower={"timeout_s": 0.5})
    with WrongFlower(right) as flower:
        scaler = start(flower)
        process = psutil.Process(scaler.process.pid)
        before = process.memory_info().rss

        def is_told(what: str) -> bool:
            return what in scaler.state()["pools"]["browser"]["reason"]

        for name in IN_HTTP:
            flower.answer, count = FAULTS[name], len(flower.asked)
            # The second question is another turn's.
            wait_until(partial(has_asked, flower, count + 2), what=name)
            wait_until(partial(is_told, FAULTS[name].told), what=FAULTS[name].told)
            assert scaler.state()["pools"]["browser"]["waiting"] is None
        flower.answer = right
        wait_until(lambda: not is_told("queue length unknown"), what="its return")
        assert process.memory_info().rss - before < 64 * 2**20
        assert asked(systemctl) == []
        # What it was told is one line each, in the journal and for systemd.
        assert "\x1b" not in scaler.log
        allowed = ("READY=1", "STATUS=", "WATCHDOG=1", "STOPPING=1")
        assert all(line.startswith(allowed) for line in scaler.notify.told)
        leave(scaler)
    assert asked(systemctl) == []


class Port:
    """A port that takes connections, and one way of not being an SSH server."""

    def __init__(self, talk: Callable[[socket.socket, threading.Event], None]) -> None:
        self._talk = talk
        self._over = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.number: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)

    def _accept(self) -> None:
        while True:
            connection, _ = self._server.accept()
            if self._over.is_set():
                connection.close()
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._talk(connection, self._over)
            except OSError:
                # The scaler hung up.
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        socket.create_connection(("127.0.0.1", self.number)).close()
        self._thread.join()
        self._server.close()


def say_nothing(_: socket.socket, over: threading.Event) -> None:
    over.wait()


def say_garbage(connection: socket.socket, _: threading.Event) -> None:
    connection.sendall(b"\x00\xff\x1b[2J" * 1000 + b"\r\n")


def say_no_end(connection: socket.socket, over: threading.Event) -> None:
    while not over.is_set():
        connection.sendall(b"x" * 65_536)


def stop_after_the_banner(connection: socket.socket, over: threading.Event) -> None:
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    over.wait()


WRONG_HOSTS = {
    "silent": say_nothing,
    "garbage": say_garbage,
    "endless": say_no_end,
    "half": stop_after_the_banner,
}


@contextmanager
def wrong_hosts() -> Iterator[dict[str, int]]:
    """Ports by the names of hosts."""
    ports = {name: Port(talk) for name, talk in WRONG_HOSTS.items()}
    for port in ports.values():
        port.__enter__()
    try:
        yield {name: port.number for name, port in ports.items()}
    finally:
        for port in ports.values():
            port.__exit__()


def test_hosts_that_hang_or_answer_nonsense_keep_nobody_from_work_and_stop_nothing(
    stage: Stage, systemctl: StubSystemctl, start: Start
) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(stage.directory / "id"))
    (stage.directory / "known_hosts").write_text("", encoding="utf-8")
    systemctl.add("celery-browser@1.service")
    with wrong_hosts() as ports, WrongFlower(Answer(lengths(row(0), row(3, "analysis")))) as flower:
        stage.write_config(
            hosts={
                name: {"address": "127.0.0.1", "port": port, "max_instances": 9}
                for name, port in ports.items()
            },
            scaler={
                "command_timeout_s": 1.0,
                "known_hosts": str(stage.directory / "known_hosts"),
                "ssh_key": str(stage.directory / "id"),
            },
        )
        stage.client.submit("analysis", {"html": "<p>x</p>"})
        scaler = start(flower)
        process = psutil.Process(scaler.process.pid)
        for name in ports:
            wait_until(partial(is_logged, scaler, f"{name} does not answer"), what=name)
        # Work is begun where somebody answers, and nowhere else.
        wait_until(lambda: asked(systemctl), what="the start")
        before = process.memory_info().rss
        turns(scaler, 8)
        hosts = scaler.state()["hosts"]
        assert [name for name, host in hosts.items() if host["answers"]] == ["here"]
        assert process.memory_info().rss - before < 32 * 2**20
        assert asked(systemctl) == ["--no-ask-password start --no-block celery-analysis@1.service"]
        assert "\x1b" not in scaler.log
        leave(scaler)
    assert not any(" stop " in call for call in systemctl.calls)


GOOD = """
pools:
  browser: {task_type: browser, queues: [browser], metrics_port_base: 9100, max_instances: 4}
  analysis: {task_type: analysis, queues: [analysis], metrics_port_base: 9300}
hosts:
  here: {address: local, max_instances: 8}
  late: {address: 127.0.0.1, max_instances: 8}
"""
#: By what is wrong: what the file holds, and what is told of it. More of it in tests/unit.
WRONG_FILES: dict[str, tuple[bytes, str]] = {
    "bad YAML": (b"pools: {", "expected valid YAML"),
    "a date that is none": (b"pools: 2024-13-45", "no timestamp: '2024-13-45'"),
    "another encoding": ("pools: é".encode("latin-1"), "not UTF-8"),
    "no hosts": (
        GOOD.split("hosts:", maxsplit=1)[0].encode(),
        "hosts: got nothing, expected at least one",
    ),
    "an unknown key": (f"{GOOD}colour: red\n".encode(), "colour: got 'red', expected no such key"),
    "a duplicate host": (
        f"{GOOD}  here: {{address: local, max_instances: 1}}\n".encode(),
        "the key 'here' is given twice",
    ),
    "minimum above maximum": (
        GOOD.replace("max_instances: 4", "max_instances: 4, min_instances: 5").encode(),
        "pools.browser.min_instances: got 5, expected at most max_instances, which is 4",
    ),
    "a pool on no host": (
        GOOD.replace("max_instances: 8", "max_instances: 8, pools: [browser]").encode(),
        "pools.analysis: got a pool that no host runs",
    ),
    "cron nonsense": (
        GOOD.replace(
            "max_instances: 4", "schedules: [{start: 0 25 * * *, duration: 1h, spare: 1}]"
        ).encode(),
        "schedules.0.start: got '0 25 * * *', expected five fields as in crontab",
    ),
}


def test_a_reload_with_a_config_that_is_wrong_keeps_the_old_one(
    stage: Stage, systemctl: StubSystemctl, start: Start
) -> None:
    systemctl.add("celery-browser@1.service")
    with WrongFlower(Answer(lengths(row(0), row(0, "analysis")))) as flower:
        scaler = start(flower)
        right = stage.config.read_bytes()

        def put(content: bytes) -> None:
            scratch = stage.config.with_suffix(".new")
            scratch.write_bytes(content)
            scratch.replace(stage.config)

        for number, (name, (content, told)) in enumerate(WRONG_FILES.items(), start=1):
            put(content)
            scaler.process.send_signal(signal.SIGHUP)
            refusal = "the hosts stay as they were: "
            wait_until(partial(is_logged, scaler, refusal, number), what=name)
            last = scaler.log.rpartition(refusal)[2]
            assert told in last, (name, last)
            assert last.startswith(f"{stage.config}: "), name
        stage.config.unlink()
        scaler.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "No such file or directory" in scaler.log, what="that it is gone")
        turns(scaler, 2)
        assert list(scaler.state()["hosts"]) == ["here"]
        assert scaler.state()["hosts"]["here"]["answers"] is True
        document = yaml.safe_load(right)
        far: dict[str, Any] = {"address": "127.0.0.1", "port": free_port(), "max_instances": 1}
        (stage.directory / "credentials" / "ssh-key").write_text("no key", encoding="utf-8")
        put(yaml.safe_dump({**document, "hosts": {**document["hosts"], "far": far}}).encode())
        wait_until(lambda: "hosts added: far" in scaler.log, what="what is right at last")
        assert asked(systemctl) == []
        leave(scaler)
    assert asked(systemctl) == []


@pytest.mark.parametrize("name", ["bad YAML", "an unknown key", "a pool on no host"])
def test_a_start_with_a_config_that_is_wrong_is_exit_2_and_touches_nothing(
    stage: Stage, systemctl: StubSystemctl, name: str, tmp_path: Path
) -> None:
    content, told = WRONG_FILES[name]
    wrong = tmp_path / "wrong.yaml"
    wrong.write_bytes(content)
    ran = stage.swarm("scaler", "run", SWARM_CONFIG=str(wrong), **systemctl.own_environ)
    assert ran.returncode == 2
    assert told in ran.stderr
    assert str(wrong) in ran.stderr
    assert "Traceback" not in ran.stderr
    assert systemctl.calls == []


def test_a_control_host_that_can_write_nothing_goes_on_with_the_work(
    stage: Stage, systemctl: StubSystemctl, start: Start
) -> None:
    """Directories stand where status.json and decisions.jsonl would be written."""
    (stage.directory / "state" / "status.tmp").mkdir(parents=True)
    (stage.settings.scaler.data_directory / "decisions.jsonl").mkdir(parents=True)
    systemctl.add("celery-browser@1.service")
    with WrongFlower(Answer(lengths(row(0), row(3, "analysis")))) as flower:
        stage.client.submit("analysis", {"html": "<p>x</p>"})
        scaler = start(flower)
        wait_until(lambda: asked(systemctl), what="the start")
        turns(scaler, 4)
        assert asked(systemctl) == ["--no-ask-password start --no-block celery-analysis@1.service"]
        assert scaler.log.count("status.json not written: Is a directory") == 1
        assert scaler.log.count("decisions are not recorded") == 1
        leave(scaler)

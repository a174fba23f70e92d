"""`swarm-unitctl watch`: what changed is told at once, what did not only by a heartbeat."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import pytest

from swarm import unitctl
from swarm.status import DrainStatus
from swarm.system_bus import BusError, Call, SystemBus
from swarm.unit_bus import Units
from swarm.unit_entry import pressures
from swarm.unit_watch import LATE_S, RequestError, Requests, Told, Words
from tests.builders import make_status
from tests.loopback import wait_until
from tests.stub_bus import StubBus
from tests.stub_systemctl import StubSystemctl

UNIT = "celery-browser@3.service"
REPOSITORY = Path(unitctl.__file__).parents[1]


def entry(number: int = 3, *, word: Any = None, **fields: Any) -> dict[str, Any]:
    """As `Units` and `Words` tell it; the instance wrote its word at 99 s."""
    return {"pool": "browser", "number": number, "main_pid": 812, "status": word, **fields}


def word(**fields: Any) -> dict[str, Any]:
    return asdict(make_status(number=3, pid=812, **fields))


def numbers(entries: list[Any]) -> list[int]:
    return [each["number"] for each in entries]


class TestTold:
    def test_what_did_not_change_is_not_told_again(self) -> None:
        told = Told()
        entries = [entry(1), entry(2, word=word())]
        assert told.news(entries, now=100.0, heartbeat=True) == (entries, [])
        renewed = [entry(1), entry(2, word=word(written_at=104.0))]
        assert told.news(renewed, now=104.1, heartbeat=True) == ([], [])

    @pytest.mark.parametrize(
        "changed",
        [
            entry(2, word=word(active=1)),
            entry(2, word=word(drain=DrainStatus("idle", 3, 98.0))),
            entry(2, active_state="failed"),
            entry(2, main_pid=813),
        ],
    )
    def test_only_what_changed_is_told(self, changed: dict[str, Any]) -> None:
        told = Told()
        told.news([entry(1), entry(2, word=word())], now=100.0, heartbeat=False)
        assert told.news([entry(1), changed], now=100.1, heartbeat=False) == ([changed], [])

    def test_an_instance_that_is_gone_is_named_once(self) -> None:
        told = Told()
        told.news([entry(1), entry(2)], now=100.0, heartbeat=False)
        assert told.news([entry(2)], now=100.1, heartbeat=False) == ([], [("browser", 1)])
        assert told.news([entry(2)], now=100.2, heartbeat=False) == ([], [])

    def test_a_word_that_grows_old_is_told_at_once_and_with_every_heartbeat(self) -> None:
        told = Told()
        entries = [entry(1), entry(2, word=word())]
        told.news(entries, now=99.1, heartbeat=True)
        assert told.news(entries, now=99.0 + LATE_S, heartbeat=True) == ([], [])
        late = 99.1 + LATE_S
        assert numbers(told.news(entries, now=late, heartbeat=False)[0]) == [2]
        assert numbers(told.news(entries, now=late + 0.2, heartbeat=False)[0]) == []
        assert numbers(told.news(entries, now=late + 5, heartbeat=True)[0]) == [2]
        renewed = [entry(1), entry(2, word=word(written_at=late + 6))]
        assert numbers(told.news(renewed, now=late + 6, heartbeat=False)[0]) == [2]
        assert numbers(told.news(renewed, now=late + 7, heartbeat=True)[0]) == []

    def test_a_word_from_the_future_is_told_until_it_is_believed(self) -> None:
        told = Told()
        entries = [entry(2, word=word(written_at=200.0))]
        for now in (100.0, 105.0, 199.0):
            assert numbers(told.news(entries, now=now, heartbeat=True)[0]) == [2]
        assert numbers(told.news(entries, now=201.0, heartbeat=True)[0]) == [2]
        assert numbers(told.news(entries, now=202.0, heartbeat=True)[0]) == []

    @pytest.mark.parametrize("written_at", [None, "soon", [], {}])
    def test_a_word_without_a_time_is_told_like_any_other(self, written_at: Any) -> None:
        told = Told()
        entries = [entry(2, word={**word(), "written_at": written_at})]
        assert numbers(told.news(entries, now=100.0, heartbeat=True)[0]) == [2]
        assert numbers(told.news(entries, now=200.0, heartbeat=True)[0]) == []


class TestRequests:
    def test_the_last_complete_one_counts(self) -> None:
        requests = Requests()
        assert requests.feed(b"") is None
        assert requests.feed(b"look 1\nlook 2\nlo") == 2
        assert requests.feed(b"ok 31") is None
        assert requests.feed(b"7\n") == 317

    @pytest.mark.parametrize(
        "received",
        [b"\n", b"look\n", b"look x\n", b"look 1 2\n", b"stop browser 1\n", b"look 1234567890\n"],
    )
    def test_anything_else_is_refused(self, received: bytes) -> None:
        with pytest.raises(RequestError, match="expected: look NUMBER"):
            Requests().feed(received)

    def test_an_endless_line_is_refused(self) -> None:
        requests = Requests()
        requests.feed(b"look " + b"1" * 59)
        with pytest.raises(RequestError, match="too long"):
            requests.feed(b"1")


class TestWords:
    def test_a_file_is_read_again_only_when_it_was_replaced(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        words = Words(str(tmp_path))
        assert words.of(entry()) is None
        make_status(number=3, pid=812).write(tmp_path)
        assert words.of(entry()) == json.loads((tmp_path / "browser-3.json").read_bytes())
        monkeypatch.setattr(os, "read", None)
        assert words.of(entry())["done"] == 153
        monkeypatch.undo()
        make_status(number=3, pid=812, done=154).write(tmp_path)
        assert words.of(entry())["done"] == 154
        (tmp_path / "browser-3.json").unlink()
        assert words.of(entry()) is None

    def test_a_word_with_many_queues_is_read(self, tmp_path: Path) -> None:
        queues = tuple(f"browser.tenant-{number:04}" for number in range(400))
        make_status(number=3, pid=812, queues=queues).write(tmp_path)
        assert Words(str(tmp_path)).of(entry())["queues"] == list(queues)

    def test_a_word_of_an_earlier_process_is_none(self, tmp_path: Path) -> None:
        make_status(number=3, pid=812).write(tmp_path)
        words = Words(str(tmp_path))
        assert words.of(entry(main_pid=813)) is None
        assert words.of(entry(main_pid=812)) is not None

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 10_000, b" " * 20_000])
    def test_garbage_is_no_word(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "browser-3.json").write_bytes(content)
        assert Words(str(tmp_path)).of(entry()) is None

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path)])
    def test_what_is_no_file_holds_nobody_up(
        self, tmp_path: Path, make: Callable[[Path], None]
    ) -> None:
        make(tmp_path / "browser-3.json")
        assert Words(str(tmp_path)).of(entry()) is None


@pytest.fixture
def systemctl(tmp_path: Path) -> StubSystemctl:
    return StubSystemctl(tmp_path)


@pytest.fixture
def bus(systemctl: StubSystemctl) -> Iterator[StubBus]:
    with StubBus(systemctl) as bus:
        yield bus


class TestUnits:
    def test_the_states_are_systemds_and_what_it_accepted_counts_as_begun(
        self, systemctl: StubSystemctl, bus: StubBus
    ) -> None:
        systemctl.add(UNIT, main_pid=812, changed_ago_s=60)
        systemctl.add("celery-browser@4.service", active_state="inactive", job="start")
        systemctl.add("celery-browser@5.service", active_state="active", job="stop")
        systemctl.add("celery-browser@6.service", active_state="failed", exit_status=2)
        systemctl.add("celery-browser@7.service", active_state="inactive")
        systemctl.add("celery-browser@0.service")
        with SystemBus(systemctl.environ) as connection:
            entries = Units(connection).look()
        assert {each["number"]: each["active_state"] for each in entries} == {
            3: "active",
            4: "activating",
            5: "deactivating",
            6: "failed",
        }
        by_number = {each["number"]: each for each in entries}
        assert by_number[3]["main_pid"] == 812
        assert by_number[3]["state_changed_at"] == pytest.approx(time.monotonic() - 60, abs=5)
        assert by_number[6]["exit_status"] == 2

    def test_a_signal_about_an_instance_is_a_change_and_no_other(
        self, systemctl: StubSystemctl, bus: StubBus
    ) -> None:
        path = "/org/freedesktop/systemd1/unit/celery_2dbrowser_403_2eservice"
        with SystemBus(systemctl.environ) as connection:
            units = Units(connection)

            def changed(path: str, body: bytes) -> bool:
                bus.tell(path, body)
                assert select.select([units], [], [], 5)[0]
                return units.have_changed()

            assert not changed("/org/freedesktop/systemd1/unit/ssh_2eservice", b"x")
            assert changed(path, b"active")
            # A worker that tells systemd of a task has all its properties told anew.
            assert not changed(path, b"active")
            assert changed(path, b"failed")
            bus.tell(path, b"active")
            units.look()
            assert units.have_changed(), "what comes before a reply is not lost"

    @pytest.mark.parametrize(
        ("address", "reason"),
        [
            ("unix:path=/nowhere", "the system bus: No such file or directory"),
            ("tcp:host=1.2.3.4", "expected unix:path="),
            ("", "the system bus: "),
        ],
    )
    def test_a_bus_that_is_away_says_so(self, address: str, reason: str) -> None:
        if not address and Path("/run/dbus/system_bus_socket").exists():
            address, reason = "unix:abstract=swarm-nowhere", "the system bus: Connection refused"
        with pytest.raises(BusError, match=reason):
            SystemBus({"DBUS_SYSTEM_BUS_ADDRESS": address})

    def test_what_systemd_refuses_is_an_error_with_its_reason(
        self, systemctl: StubSystemctl, bus: StubBus
    ) -> None:
        with SystemBus(systemctl.environ) as connection:
            units = Units(connection)
            systemctl.fail("Access denied")
            with pytest.raises(BusError, match=r"^Access denied$"):
                units.look()

    def test_a_call_that_is_not_answered_ends_in_time(
        self, systemctl: StubSystemctl, bus: StubBus, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("swarm.system_bus._TIMEOUT_S", 0.2)
        with SystemBus(systemctl.environ) as connection:
            systemctl.hang()
            with pytest.raises(BusError, match=r"did not answer in 0\.2 s"):
                connection.call(Call("a.b", "/a", "a.b", "Hang"))


class Watching:
    """A `swarm-unitctl watch`, as a client sees it."""

    def __init__(
        self, systemctl: StubSystemctl, directory: Path, stdout: int | IO[bytes] = subprocess.PIPE
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.unitctl", str(directory), "watch"],
            env={**systemctl.environ, "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
        )

    def line(self, *, timeout_s: float = 8.0) -> dict[str, Any]:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], timeout_s)[0], "no line in time"
        document: dict[str, Any] = json.loads(self.process.stdout.readline())
        return document

    def ask(self, text: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def watching(systemctl: StubSystemctl, bus: StubBus, tmp_path: Path) -> Iterator[Watching]:
    systemctl.add(UNIT, main_pid=812)
    make_status(number=3, pid=812).write(tmp_path)
    watching = Watching(systemctl, tmp_path)
    yield watching
    watching.close()


def test_a_channel_tells_all_then_changes_then_that_nothing_changed(
    watching: Watching, systemctl: StubSystemctl, tmp_path: Path
) -> None:
    first = watching.line()
    assert (first["version"], first["sequence"]) == (1, 0)
    [told] = first["instances"]
    assert (told["number"], told["status"]["done"]) == (3, 153)

    make_status(number=3, pid=812, done=154, written_at=time.monotonic()).write(tmp_path)
    started = time.monotonic()
    [told] = watching.line()["instances"]
    assert told["status"]["done"] == 154
    assert time.monotonic() - started < 1

    started = time.monotonic()
    systemctl.add("celery-browser@4.service", active_state="activating")
    [told] = watching.line()["instances"]
    assert (told["number"], told["active_state"]) == (4, "activating")
    systemctl.remove("celery-browser@4.service")
    assert watching.line()["gone"] == [["browser", 4]]
    assert time.monotonic() - started < 2

    make_status(number=3, pid=812, done=154, written_at=time.monotonic()).write(tmp_path)
    heartbeat = watching.line()
    assert heartbeat.keys() - pressures() == {"sequence", "now", "memory_available_mb"}
    assert heartbeat["sequence"] == 4
    assert heartbeat["now"] - first["now"] == pytest.approx(5, abs=0.5)


def test_a_change_that_systemd_does_not_tell_is_found_by_the_next_heartbeat(
    watching: Watching, systemctl: StubSystemctl, bus: StubBus, tmp_path: Path
) -> None:
    watching.line()
    bus.signals = False
    systemctl.add("celery-browser@4.service", active_state="failed")
    told = watching.line()["instances"]
    assert [each["number"] for each in told if each["active_state"] == "failed"] == [4]


def test_who_asks_is_told_at_once_what_is_so_by_then(
    watching: Watching, systemctl: StubSystemctl, bus: StubBus
) -> None:
    watching.line()
    bus.signals = False
    systemctl.add("celery-browser@4.service", active_state="activating")
    started = time.monotonic()
    watching.ask(b"look 7\n")
    told = watching.line()
    assert time.monotonic() - started < 1
    assert told["look"] == 7
    assert numbers(told["instances"]) == [4]


def test_it_ends_with_its_standard_input(watching: Watching) -> None:
    watching.line()
    assert watching.process.stdin is not None
    watching.process.stdin.close()
    assert watching.process.wait(2) == 0


def test_it_ends_with_its_standard_output(watching: Watching) -> None:
    watching.line()
    assert watching.process.stdout is not None
    watching.process.stdout.close()
    assert watching.process.wait(2) == 0


def test_none_outlives_a_client_that_is_killed(systemctl: StubSystemctl, bus: StubBus) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'swarm.unitctl', 'watch'],"
        " stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, flush=True); time.sleep(60)\n"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**systemctl.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    )
    assert client.stdout is not None
    watcher = int(client.stdout.readline())
    os.kill(watcher, 0)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    wait_until(lambda: not Path(f"/proc/{watcher}/cmdline").exists(), timeout_s=3)


def test_a_full_disk_ends_it_with_the_reason(systemctl: StubSystemctl, bus: StubBus) -> None:
    with Path("/dev/full").open("wb") as full:
        watching = Watching(systemctl, Path("/nowhere"), stdout=full)
        _, errors = watching.process.communicate(timeout=5)
    assert watching.process.returncode == 1
    assert b"No space left on device" in errors


@pytest.mark.parametrize("request_", [b"stop browser 3\n", b"look\n", b"x" * 1000])
def test_what_is_no_request_ends_it_and_does_nothing(
    watching: Watching, systemctl: StubSystemctl, request_: bytes
) -> None:
    watching.line()
    watching.ask(request_)
    assert watching.process.wait(2) == 2
    assert systemctl.calls == []


def test_a_systemd_that_fails_ends_it_with_the_reason(
    watching: Watching, systemctl: StubSystemctl
) -> None:
    watching.line()
    systemctl.fail("Access denied")
    assert watching.process.wait(3) == 1
    assert watching.process.stderr is not None
    assert watching.process.stderr.read() == b"swarm-unitctl: Access denied\n"


def test_without_a_bus_it_ends_with_the_reason(systemctl: StubSystemctl, tmp_path: Path) -> None:
    watching = Watching(systemctl, tmp_path)
    _, errors = watching.process.communicate(timeout=5)
    assert watching.process.returncode == 1
    assert errors == b"swarm-unitctl: the system bus: No such file or directory\n"


def test_it_takes_at_most_15_mb(systemctl: StubSystemctl, bus: StubBus, tmp_path: Path) -> None:
    """As on a host: what its interpreter imports by itself is not counted twice."""
    for number in range(1, 11):
        systemctl.add(f"celery-browser@{number}.service", main_pid=800 + number)
        make_status(number=number, pid=800 + number).write(tmp_path)
    watching = Watching(systemctl, tmp_path)
    watching.line()
    watching.line()
    status = Path(f"/proc/{watching.process.pid}/status").read_text(encoding="ascii")
    [resident] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    watching.close()
    assert int(resident) * 1024 <= 15_000_000


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("some avg10=12.34 avg60=1.00 avg300=0.00 total=9\nfull avg10=0.00\n", {12.34}),
        ("", set()),
        ("some\n", set()),
        ("some avg10=? avg60=1.00\n", set()),
        (None, set()),
    ],
)
def test_pressures_are_what_the_kernel_tells_or_left_out(
    content: str | None, found: set[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: str, **_: Any) -> io.StringIO:
        assert path in {"/proc/pressure/memory", "/proc/pressure/cpu"}
        if content is None:
            raise FileNotFoundError(path)
        return io.StringIO(content)

    monkeypatch.setattr("builtins.open", read)
    told = pressures()
    monkeypatch.undo()
    names = {"memory_pressure", "cpu_pressure"} if found else set()
    assert (set(told), set(told.values())) == (names, found)

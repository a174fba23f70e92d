"""Records as entries of the journal, over a real datagram socket."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from swarm import journal, logs
from tests.journal_socket import Entry, JournalSocket, parse
from tests.loopback import wait_until


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JournalSocket]:
    listening = JournalSocket(tmp_path / "socket")
    monkeypatch.setattr(journal, "SOCKET", listening.path)
    yield listening
    listening.close()


@pytest.fixture
def stderr(tmp_path: Path) -> Iterator[TextIO]:
    with (tmp_path / "stderr").open("w+", encoding="utf-8") as stream:
        yield stream


def setup(stream: TextIO, **changes: Any) -> None:
    found = os.fstat(stream.fileno())
    environ = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
    identity = {"SWARM_POOL": "browser", "SWARM_INSTANCE": "3", "SWARM_HOST": "worker1"}
    options = {"under_systemd": True, "environ": environ, "identity": identity, **changes}
    logs.setup("debug", stream=stream, **options)


def entries(journald: JournalSocket, count: int = 1) -> list[Entry]:
    wait_until(lambda: len(journald.entries) >= count, timeout_s=5, what=f"{count} entries")
    return journald.entries


def log_task_line() -> None:
    logging.getLogger("swarm.test").warning("slow", extra={"fields": {"seconds": 1.5}})


def test_an_entry_says_who_and_where(journald: JournalSocket, stderr: TextIO) -> None:
    setup(stderr)
    log_task_line()
    [entry] = entries(journald)
    assert int(entry.pop("CODE_LINE")) > 0
    assert entry == {
        "MESSAGE": "slow seconds=1.5",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "swarm",
        "LOGGER": "swarm.test",
        "CODE_FILE": __file__,
        "CODE_FUNC": "log_task_line",
        "THREAD_NAME": threading.current_thread().name,
        "SWARM_POOL": "browser",
        "SWARM_INSTANCE": "3",
        "SWARM_HOST": "worker1",
        "SWARM_SECONDS": "1.5",
    }
    assert stderr.tell() == 0


def test_what_is_logged_for_a_task_has_its_id_and_only_that(
    journald: JournalSocket, stderr: TextIO
) -> None:
    setup(stderr)
    with logs.of_task("t1"):
        log_task_line()
        logs.of_no_task().run(log_task_line)
    log_task_line()
    ids = [entry.get("SWARM_TASK_ID") for entry in entries(journald, 3)]
    assert ids == ["t1", None, None]


def test_celerys_own_lines_name_their_task(journald: JournalSocket, stderr: TextIO) -> None:
    """As celery.worker.strategy says that a task was received, with no task being run."""
    setup(stderr)
    context = {"id": "t2", "name": "browser.run"}
    logging.getLogger("celery.worker.strategy").info(
        "Task %(name)s[%(id)s] received", context, extra={"data": context}
    )
    [entry] = entries(journald)
    assert entry["SWARM_TASK_ID"] == "t2"
    assert entry["MESSAGE"] == "Task browser.run[t2] received"


def test_a_field_of_the_record_wins(journald: JournalSocket, stderr: TextIO) -> None:
    setup(stderr)
    with logs.of_task("t1"):
        fields = {"task_id": "t3", "host": "worker2"}
        logging.getLogger("swarm.test").info("late", extra={"fields": fields})
    [entry] = entries(journald)
    assert (entry["SWARM_TASK_ID"], entry["SWARM_HOST"]) == ("t3", "worker2")


def test_a_traceback_is_one_entry(journald: JournalSocket, stderr: TextIO) -> None:
    setup(stderr)
    try:
        int("no")
    except ValueError:
        logging.getLogger("swarm.test").exception("failed")
    [entry] = entries(journald)
    assert entry["MESSAGE"].startswith("failed\nTraceback")
    assert "ValueError: invalid literal" in entry["MESSAGE"]
    assert entry["PRIORITY"] == "3"


def test_what_no_datagram_holds_goes_as_a_sealed_file(
    journald: JournalSocket, stderr: TextIO
) -> None:
    setup(stderr)
    text = "x\n" * 4_000_000
    logging.getLogger("swarm.test").info("%s", text)
    [entry] = entries(journald)
    assert entry["MESSAGE"] == text
    assert journald.files == 1


def test_without_journald_the_text_goes_to_the_stream(
    tmp_path: Path, stderr: TextIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "absent")
    setup(stderr)
    log_task_line()
    stderr.seek(0)
    assert stderr.read() == "<4>slow seconds=1.5\n"


@pytest.mark.parametrize("told", ["", "1:2", "nonsense"])
def test_a_stream_that_is_not_the_journal_gets_text(
    journald: JournalSocket, stderr: TextIO, told: str
) -> None:
    setup(stderr, environ={"JOURNAL_STREAM": told})
    log_task_line()
    stderr.seek(0)
    assert stderr.read() == "<4>slow seconds=1.5\n"
    assert journald.entries == []


def test_a_stream_without_a_file_is_not_the_journal() -> None:
    assert not journal.is_journal(io.StringIO(), {"JOURNAL_STREAM": "1:2"})


def test_flushing_waits_for_the_reader_and_no_longer(
    journald: JournalSocket, stderr: TextIO
) -> None:
    setup(stderr)
    for _ in range(50):
        log_task_line()
    logs.flush()
    wait_until(lambda: len(journald.entries) == 50, timeout_s=0.5, what="all entries")


@pytest.mark.parametrize("name", ["", "lower", "_TRUSTED", "1ST", "A" * 65, "WITH-DASH", "Ä"])
def test_a_name_that_journald_refuses_is_left_out(name: str) -> None:
    assert parse(journal.encode({name: "x", "GOOD": "y"})) == {"GOOD": "y"}


def test_text_that_is_no_unicode_is_escaped() -> None:
    assert parse(journal.encode({"MESSAGE": "a\udc80"})) == {"MESSAGE": "a\\udc80"}

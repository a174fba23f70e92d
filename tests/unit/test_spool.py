"""Ends of tasks on the disk."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from swarm.delivery.spool import Spool, SpooledEnd

END = SpooledEnd("tag", "task", ("holder", "tag", "task", 86400, "store", "k", b"\xff\x00", 60))


class Broker:
    """What a client of the broker does with scripts; `errors` are raised by tag, once each."""

    def __init__(self) -> None:
        self.errors: dict[str, Exception] = {}
        self.told: list[tuple[Any, ...]] = []

    def evalsha(self, _sha: str, _keys: int, *arguments: Any) -> bytes:
        if error := self.errors.pop(arguments[1], None):
            raise error
        self.told.append(arguments)
        return b"committed"


def end(tag: str) -> SpooledEnd:
    return SpooledEnd(tag, f"task of {tag}", ("holder", tag, "task"))


def send(spool: Spool, broker: Broker) -> int:
    return spool.send(broker)  # type: ignore[arg-type]


def test_an_end_is_told_once_and_as_it_was(tmp_path: Path) -> None:
    spool, broker = Spool(tmp_path, "primary"), Broker()
    assert not spool.holds("tag")
    spool.write(END)
    assert spool.holds("tag")
    # Whoever comes later finds it: another process, with the same directory.
    assert send(Spool(tmp_path, "primary"), broker) == 1
    assert broker.told == [END.arguments]
    assert not spool.holds("tag")
    assert send(spool, broker) == 0


def test_each_broker_has_ends_of_its_own(tmp_path: Path) -> None:
    Spool(tmp_path, "primary").write(END)
    broker = Broker()
    assert send(Spool(tmp_path, "fallback"), broker) == 0
    assert not Spool(tmp_path, "fallback").holds("tag")


def test_nobody_else_reads_what_tasks_returned(tmp_path: Path) -> None:
    Spool(tmp_path, "primary").write(END)
    assert stat.S_IMODE((tmp_path / "primary").stat().st_mode) == 0o700


def test_a_broker_that_is_still_away_costs_nothing(tmp_path: Path) -> None:
    spool, broker = Spool(tmp_path, "primary"), Broker()
    for tag in ("a", "b", "c"):
        spool.write(end(tag))
    for error in (
        redis.ConnectionError("away"),
        redis.ResponseError("max requests limit exceeded. Limit: 5, Usage: 5"),
    ):
        broker.errors = {"a": error, "b": error, "c": error}
        with pytest.raises(redis.RedisError):
            send(spool, broker)
        assert spool.tags() == {"a", "b", "c"}
    broker.errors.clear()
    assert send(spool, broker) == 3


def test_what_is_refused_for_good_is_put_aside_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    spool, broker = Spool(tmp_path, "primary"), Broker()
    for tag in ("a", "b"):
        spool.write(end(tag))
    broker.errors["a"] = redis.ResponseError("WRONGTYPE no list")
    assert send(spool, broker) == 1
    assert spool.tags() == set()
    [aside] = (tmp_path / "bad").iterdir()
    assert SpooledEnd.from_json(aside.read_text()) == end("a")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"version": 2}', json.dumps({"version": 1, "tag": "x"}), "\N{BOM}"],
)
def test_what_cannot_be_read_is_put_aside(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, "primary")
    spool.write(END)
    damaged = tmp_path / "primary" / "0.json"
    damaged.write_text(content, encoding="utf-8")
    broker = Broker()
    assert send(spool, broker) == 1
    assert not damaged.exists()
    assert (tmp_path / "bad" / "0.json").read_text(encoding="utf-8") == content
    assert "will be given back and done again" in caplog.text


def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path, "primary")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        spool.write(END)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_a_killed_process_leaves_lies_where_nobody_waits_for_it_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd starts the sender as long as the broker's directory is not empty."""
    spool = Spool(tmp_path, "primary")
    seen: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend((tmp_path / "primary").iterdir()))
    spool.write(END)
    # At the first one, of the file itself, nothing of it was there yet.
    assert [path.suffix for path in seen] == [".json"]


def test_one_that_cannot_be_put_aside_keeps_nobody_from_sending(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool, broker = Spool(tmp_path, "primary"), Broker()
    spool.write(END)
    (tmp_path / "primary" / "0.json").write_text("damaged", encoding="utf-8")
    (tmp_path / "bad").write_text("no directory", encoding="utf-8")
    assert send(spool, broker) == 1
    assert "not put aside" in caplog.text


def test_a_tag_may_be_any_text(tmp_path: Path) -> None:
    spool = Spool(tmp_path, "primary")
    for tag in ("../../etc/passwd", "a" * 5000, "\n", "ü"):
        spool.write(end(tag))
        assert spool.holds(tag)
    assert len(list(tmp_path.rglob("*.json"))) == 4


@given(
    st.lists(st.one_of(st.text(), st.binary(), st.integers(-(2**53), 2**53))).map(tuple),
)
def test_arguments_come_back_as_they_were(arguments: tuple[str | bytes | int, ...]) -> None:
    spooled = SpooledEnd("tag", "task", arguments)
    assert SpooledEnd.from_json(spooled.to_json()) == spooled

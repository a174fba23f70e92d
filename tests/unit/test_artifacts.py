"""The directory store: what the contract (tests/contract) cannot see from outside."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from swarm.browse.artifacts import (
    ArtifactRefusedError,
    ArtifactStoreAwayError,
    Keeping,
    artifact_id_of,
    is_artifact_id,
)
from swarm.browse.directory_store import DirectoryStore
from swarm.browse.errors import ErrorCode
from swarm.browse.failures import store_failure
from swarm.browse.stores import make_store
from swarm.environment import read_artifacts_credential
from swarm.errors import ConfigError, PermanentError, TransientError
from swarm.settings import BrowserSettings

ID = "0123456789abcdef" * 2


def left_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_the_url_of_a_directory_says_host_and_path(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "a b", host="w1")
    (tmp_path / "a b").mkdir()
    artifact = await store.put(b"x", kind="text", mime="text/plain")
    assert artifact.url == f"file://w1{tmp_path}/a%20b/{artifact.id}.txt"


async def test_a_missing_directory_refuses(tmp_path: Path) -> None:
    with pytest.raises(ArtifactRefusedError, match="No such file"):
        await DirectoryStore(tmp_path / "absent", host="w1").put(b"", kind="k", mime="text/plain")


async def test_a_missing_source_is_not_the_store_s_fault(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await DirectoryStore(tmp_path, host="w1").put(tmp_path / "x", kind="k", mime="text/plain")


async def test_what_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("swarm.browse.directory_store.os.link", refuse)
    with pytest.raises(ArtifactRefusedError, match="No space left"):
        await DirectoryStore(tmp_path, host="w1").put(b"x", kind="text", mime="text/plain")
    assert left_in(tmp_path) == []


async def test_a_copy_that_nobody_waits_for_any_more_is_given_up(tmp_path: Path) -> None:
    """The source is a pipe that never ends: without giving up, the thread would not either."""
    root = tmp_path / "root"
    root.mkdir()
    pipe = tmp_path / "endless"
    os.mkfifo(pipe)
    putting = asyncio.ensure_future(
        DirectoryStore(root, host="w1").put(pipe, kind="k", mime="video/webm")
    )
    writer: int = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)
    try:
        await asyncio.to_thread(os.write, writer, b"x" * 1000)
        putting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await putting
        with pytest.raises(BrokenPipeError):
            await asyncio.to_thread(write_much, writer)
    finally:
        os.close(writer)
    assert left_in(root) == []


def write_much(descriptor: int) -> None:
    for _ in range(1000):
        os.write(descriptor, b"x" * 300_000)


@pytest.mark.parametrize(
    ("name", "artifact_id"),
    [
        (f"{ID}.png", ID),
        (f"{ID}.exe", None),
        (f"{ID}", None),
        (f"../{ID}.png", None),
        (f"{ID.upper()}.png", None),
        (f"{ID}.png\n", None),
        ("", None),
    ],
)
def test_only_the_store_s_own_names_are_names(name: str, artifact_id: str | None) -> None:
    assert artifact_id_of(name) == artifact_id


@pytest.mark.parametrize("text", ["", "x", ID[:-1], ID + "0", f"{ID}.png", "../" + ID, ID + "\n"])
def test_nothing_else_is_an_id(text: str) -> None:
    assert not is_artifact_id(text)
    assert is_artifact_id(ID)


def test_what_is_kept_by_default_is_what_the_settings_say() -> None:
    settings = BrowserSettings()
    assert Keeping() == Keeping(
        settings.artifact_max_bytes, timedelta(seconds=settings.artifacts_max_age_s)
    )


def test_a_store_that_is_away_is_tried_again_and_one_without_room_is_not() -> None:
    away = store_failure(ArtifactStoreAwayError("no answer"), stage="shot")
    full = store_failure(ArtifactRefusedError("full"), stage="shot")
    assert isinstance(away, TransientError)
    assert isinstance(full, PermanentError)
    assert (away.code, away.stage) == (full.code, full.stage) == (ErrorCode.RESOURCE_LIMIT, "shot")


def test_the_url_decides_which_store_it_is(tmp_path: Path) -> None:
    here: Any = make_store(BrowserSettings(), host="h", credential="")
    there: Any = make_store(
        BrowserSettings(artifacts_url="http://h:9480"), host="h", credential="writer:t"
    )
    assert [type(store).__name__ for store in (here, there)] == ["DirectoryStore", "HttpStore"]


def test_the_fleet_s_store_needs_its_credential(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    settings = BrowserSettings(artifacts_url="http://h:9480")
    assert read_artifacts_credential(BrowserSettings(), "artifacts-write", environ) == ""
    with pytest.raises(ConfigError, match="artifacts-write: got nothing, expected USER:TOKEN"):
        read_artifacts_credential(settings, "artifacts-write", environ)
    (tmp_path / "artifacts-write").write_text("secret\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="something else") as caught:
        read_artifacts_credential(settings, "artifacts-write", environ)
    assert "secret" not in str(caught.value)
    (tmp_path / "artifacts-write").write_text("writer:token\n", encoding="utf-8")
    assert read_artifacts_credential(settings, "artifacts-write", environ) == "writer:token"

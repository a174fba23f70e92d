"""The artifact store: opaque names, nothing replaced, nothing half written."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from swarm.browse.artifacts import DirectoryStore


def test_what_is_put_is_there_under_an_opaque_name(tmp_path: Path) -> None:
    artifact = DirectoryStore(tmp_path, host="w1").put(b"png", kind="screenshot", mime="image/png")
    assert Path(artifact.path).read_bytes() == b"png"
    assert Path(artifact.path).parent == tmp_path
    assert re.fullmatch(r"[0-9a-f]{32}\.png", Path(artifact.path).name)
    assert artifact.bytes == 3
    assert artifact.sha256 == hashlib.sha256(b"png").hexdigest()
    assert (artifact.host, artifact.kind, artifact.mime) == ("w1", "screenshot", "image/png")


def test_the_same_content_twice_is_two_files(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path, host="w1")
    first, second = (store.put(b"x", kind="text", mime="text/plain") for _ in range(2))
    assert first.path != second.path
    assert sorted(str(path) for path in tmp_path.iterdir()) == sorted([first.path, second.path])


@pytest.mark.parametrize(
    ("mime", "suffix"), [("image/png", ".png"), ("text/html", ".html"), ("text/plain", ".txt")]
)
def test_the_suffix_follows_the_type(tmp_path: Path, mime: str, suffix: str) -> None:
    artifact = DirectoryStore(tmp_path, host="w1").put(b"", kind="k", mime=mime)
    assert Path(artifact.path).suffix == suffix


def test_a_missing_directory_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DirectoryStore(tmp_path / "absent", host="w1").put(b"", kind="k", mime="text/plain")


def test_what_fails_half_way_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("swarm.browse.artifacts.os.link", refuse)
    with pytest.raises(OSError, match="No space left"):
        DirectoryStore(tmp_path, host="w1").put(b"x", kind="text", mime="text/plain")
    assert list(tmp_path.iterdir()) == []

"""The artifact store of one machine: a directory of files with opaque names."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from swarm.browse.artifacts import (
    CHUNK_BYTES,
    EXTENSIONS,
    ArtifactRefusedError,
    ArtifactStoreAwayError,
    Keeping,
    NoSuchArtifactError,
    is_artifact_id,
)
from swarm.browse.result import Artifact


class DirectoryStore:
    """Keeps artifacts under `root`; removing old ones is systemd-tmpfiles' business."""

    def __init__(self, root: Path, *, host: str, keeping: Keeping | None = None) -> None:
        self._root = root
        self._host = host
        self._keeping = keeping or Keeping()

    async def put(self, content: bytes | Path, *, kind: str, mime: str) -> Artifact:
        artifact_id = uuid.uuid4().hex
        target = self._root / f"{artifact_id}.{EXTENSIONS[mime]}"
        stopped = threading.Event()
        try:
            size, digest = await asyncio.to_thread(self._write, content, target, stopped)
        except asyncio.CancelledError:
            # A thread cannot be cancelled, but asked.
            stopped.set()
            raise
        return Artifact(
            id=artifact_id,
            kind=kind,
            mime=mime,
            bytes=size,
            sha256=digest,
            expires=self._keeping.expires(),
            url=f"file://{self._host}{quote(str(target.absolute()))}",
        )

    async def get(self, artifact_id: str, into: BinaryIO) -> str:
        return await asyncio.to_thread(self._read, artifact_id, into)

    async def close(self) -> None:
        """Nothing is open."""

    def _write(
        self, content: bytes | Path, target: Path, stopped: threading.Event
    ) -> tuple[int, str]:
        """Write and link; returns the size and the sha256."""
        scratch = self._root / f".{target.stem}.tmp"
        size, digest = 0, hashlib.sha256()
        with _chunks(content) as chunks, _refusals():
            try:
                with scratch.open("xb") as file:
                    for chunk in chunks:
                        size += len(chunk)
                        self._keeping.check(size)
                        digest.update(chunk)
                        file.write(chunk)
                        if stopped.is_set():
                            raise ArtifactRefusedError("nobody waits for it any more")
                # Never onto a file that is there, and all of it at once.
                os.link(scratch, target)
            finally:
                scratch.unlink(missing_ok=True)
        return size, digest.hexdigest()

    def _read(self, artifact_id: str, into: BinaryIO) -> str:
        if is_artifact_id(artifact_id):
            for extension in EXTENSIONS.values():
                path = self._root / f"{artifact_id}.{extension}"
                try:
                    file = path.open("rb")
                except FileNotFoundError:
                    continue
                except OSError as exc:
                    raise ArtifactStoreAwayError(f"{path}: {exc.strerror}") from exc
                with file:
                    shutil.copyfileobj(file, into, CHUNK_BYTES)
                return path.name
        raise NoSuchArtifactError(f"no artifact {artifact_id} in {self._root} of this host")


@contextmanager
def _chunks(content: bytes | Path) -> Iterator[Iterator[bytes]]:
    """Pieces of it. A file is opened here: that it is not there is no fault of the store."""
    if isinstance(content, bytes):
        yield iter((content,))
        return
    with content.open("rb") as file:
        yield iter(lambda: file.read(CHUNK_BYTES), b"")


@contextmanager
def _refusals() -> Iterator[None]:
    """What the file system has against it, as the store's own error."""
    try:
        yield
    except OSError as exc:
        raise ArtifactRefusedError(exc.strerror or str(exc)) from exc

"""What a store of artifacts is, and how one says that it does not take or have something.

Two do it: `directory_store` on one machine, `http_store` on a fleet; `stores` chooses. Whoever puts
something never names it: the id is the store's, so nothing can be replaced.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

from swarm.browse.result import Artifact
from swarm.errors import PermanentError, TransientError

#: What artifacts may be. The role's nginx has the same table, and takes nothing else.
EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "application/pdf": "pdf",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/json": "json",
    "application/har+json": "har",
    # A trace of Playwright.
    "application/zip": "zip",
    "video/webm": "webm",
    # A download, whatever the page says that it is.
    "application/octet-stream": "bin",
}
CHUNK_BYTES = 256 * 1024
_ID = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(rf"(?P<id>[0-9a-f]{{32}})\.({'|'.join(EXTENSIONS.values())})")


class ArtifactRefusedError(PermanentError):
    """It is too large, or the store has no room for it."""


class ArtifactStoreAwayError(TransientError):
    """The store did not answer; nothing was stored that anybody knows of."""

    exit_status = 3


class NoSuchArtifactError(PermanentError):
    """The store has no artifact of this id; it may have been removed for its age."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How large an artifact may be, and how long it is kept; the defaults are the settings'."""

    max_bytes: int = 512 * 1024**2
    max_age: timedelta = timedelta(days=7)

    def check(self, size: int) -> None:
        """Refuse what is too large.

        Raises:
            ArtifactRefusedError: it is.
        """
        if size > self.max_bytes:
            raise ArtifactRefusedError(
                f"an artifact of more than {self.max_bytes} bytes (browser.artifact_max_bytes)"
            )

    def expires(self) -> str:
        """ISO 8601 in UTC: what is stored now is kept until then at least."""
        return (datetime.now(UTC) + self.max_age).strftime("%Y-%m-%dT%H:%M:%SZ")


class ArtifactStore(Protocol):
    """Keeps files for a while. Its methods never block the loop that they are called on."""

    async def put(self, content: bytes | Path, *, kind: str, mime: str) -> Artifact:
        """Store bytes, or a copy of a file, under a new id. Half of it is never to be seen.

        A file may be larger than memory. Cancelled, it leaves nothing, or at the last moment a
        whole artifact of which nobody knows.

        Raises:
            ArtifactRefusedError: too large, or no room.
            ArtifactStoreAwayError: no answer; the task may be tried again.
        """
        ...

    async def get(self, artifact_id: str, into: BinaryIO) -> str:
        """Copy an artifact into an open file. Returns its name, `<id>.<extension>`.

        Raises:
            NoSuchArtifactError: there is none.
            ArtifactStoreAwayError: no answer, or half of one.
        """
        ...

    async def close(self) -> None:
        """End its connections."""
        ...


def is_artifact_id(text: str) -> bool:
    """Whether a store could have given this id."""
    return _ID.fullmatch(text) is not None


def artifact_id_of(name: str) -> str | None:
    """The id in a file's name; None when no artifact has such a name."""
    match = _NAME.fullmatch(name)
    return match["id"] if match else None

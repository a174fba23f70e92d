"""What one job takes home: small values inline, everything else as artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swarm.browse.artifacts import ArtifactStore
from swarm.browse.result import Artifact
from swarm.browse.secrets import Redactor


class Outbox:
    """Collects one job's artifacts; texts that are small stay in the result."""

    def __init__(self, store: ArtifactStore, redactor: Redactor, *, inline_bytes: int) -> None:
        self._store = store
        self._redactor = redactor
        self._inline_bytes = inline_bytes
        self.artifacts: list[Artifact] = []

    async def content(self, content: bytes, *, kind: str, mime: str) -> str:
        """Keep bytes; the id of the artifact.

        Raises:
            ArtifactRefusedError, ArtifactStoreAwayError: the store takes nothing.
        """
        return await self._put(content, kind=kind, mime=mime)

    async def file(self, path: Path, *, kind: str, mime: str) -> str:
        """Keep what a browser or driver has written; the id of the artifact. Errors as above."""
        return await self._put(path, kind=kind, mime=mime)

    async def _put(self, content: bytes | Path, *, kind: str, mime: str) -> str:
        artifact = await self._store.put(content, kind=kind, mime=mime)
        self.artifacts.append(artifact)
        return artifact.id

    async def text(self, text: str, *, kind: str, mime: str) -> str:
        """The text, or the id of the artifact that holds it."""
        text = self._redactor.text(text)
        content = text.encode("utf-8", errors="replace")
        if len(content) <= self._inline_bytes:
            # A lone surrogate, which JavaScript allows, would not pass through JSON.
            return content.decode()
        return await self.content(content, kind=kind, mime=mime)

    async def values(self, values: Any, *, kind: str) -> Any:
        """The values, or the id of the artifact that holds them as JSON."""
        # Scripts give more than JSON has: dates and errors become texts, NaN null, a lone surrogate
        # a question mark.
        text = json.dumps(
            self._redactor.values(values),
            default=lambda value: self._redactor.text(str(value)),
            ensure_ascii=False,
        )
        content = text.encode("utf-8", errors="replace")
        if len(content) <= self._inline_bytes:
            return json.loads(content, parse_constant=lambda _: None)
        return await self.content(content, kind=kind, mime="application/json")

"""What one job takes home: small values inline, everything else as artifacts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from swarm.browse.artifacts import DirectoryStore
from swarm.browse.result import Artifact
from swarm.browse.secrets import Redactor


class Outbox:
    """Collects one job's artifacts; texts that are small stay in the result."""

    def __init__(self, store: DirectoryStore, redactor: Redactor, *, inline_bytes: int) -> None:
        self._store = store
        self._redactor = redactor
        self._inline_bytes = inline_bytes
        self.artifacts: list[Artifact] = []

    async def content(self, content: bytes, *, kind: str, mime: str) -> str:
        """Keep a file; its id.

        Raises:
            OSError: the store takes nothing.
        """
        artifact = await asyncio.to_thread(self._store.put, content, kind=kind, mime=mime)
        self.artifacts.append(artifact)
        return artifact.id

    async def file(self, path: Path, *, kind: str, mime: str, text: bool = False) -> str:
        """Keep what a browser or driver has written; its id. `text`: secrets are looked for."""
        content = await asyncio.to_thread(path.read_bytes)
        return await self.content(
            self._redactor.content(content) if text else content, kind=kind, mime=mime
        )

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
        values = self._redactor.values(values)
        content = json.dumps(values).encode("utf-8", errors="replace")
        if len(content) <= self._inline_bytes:
            return values
        return await self.content(content, kind=kind, mime="application/json")

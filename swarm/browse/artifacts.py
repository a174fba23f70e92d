"""The artifact store of one machine: a directory of files with opaque names."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path

from swarm.browse.result import Artifact

_EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "application/pdf": "pdf",
    "application/zip": "zip",
    "application/octet-stream": "bin",
    "text/markdown": "md",
    "video/webm": "webm",
    "text/html": "html",
    "text/plain": "txt",
    "application/json": "json",
}


class DirectoryStore:
    """Keeps artifacts under `root`; ages are systemd-tmpfiles' business."""

    def __init__(self, root: Path, *, host: str) -> None:
        self._root = root
        self._host = host

    def put(self, content: bytes, *, kind: str, mime: str) -> Artifact:
        """Store `content` under a new id; never replaces a file.

        Raises:
            OSError: the directory is missing, full or not writable.
        """
        artifact_id = uuid.uuid4().hex
        target = self._root / f"{artifact_id}.{_EXTENSIONS[mime]}"
        scratch = self._root / f".{artifact_id}.tmp"
        try:
            with scratch.open("xb") as file:
                file.write(content)
            os.link(scratch, target)
        finally:
            scratch.unlink(missing_ok=True)
        return Artifact(
            id=artifact_id,
            kind=kind,
            mime=mime,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            host=self._host,
            path=str(target),
        )

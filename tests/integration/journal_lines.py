"""Loaded into a worker: its journald is the socket $JOURNAL, its stderr the journal's stream."""

from __future__ import annotations

import os
from pathlib import Path

from swarm import journal

journal.SOCKET = Path(os.environ["JOURNAL"])
_stderr = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{_stderr.st_dev}:{_stderr.st_ino}"

"""Logging for services under systemd: one sentence a line, then `key=value` fields.

journald reads the `<N>` prefix as the priority, so `journalctl -p warning` works.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TextIO

_SYSLOG_PRIORITY = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}


class _ServiceFormatter(logging.Formatter):
    def __init__(self, *, priority_prefix: bool) -> None:
        super().__init__("%(message)s")
        self._priority_prefix = priority_prefix

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = getattr(record, "fields", None)
        if fields:
            line = f"{line} {format_fields(fields)}"
        if self._priority_prefix:
            priority = _SYSLOG_PRIORITY.get(record.levelno, 6)
            # journald splits at newlines, and each line needs the prefix again.
            return "\n".join(f"<{priority}>{part}" for part in line.splitlines())
        return line


def format_fields(fields: Mapping[str, object]) -> str:
    """Render `{"host": "worker1", "why": "no room"}` as `host=worker1 why="no room"`."""

    def render(value: object) -> str:
        text = f"{value:.1f}" if isinstance(value, float) else str(value)
        return f'"{text}"' if " " in text or text == "" else text

    return " ".join(f"{key}={render(value)}" for key, value in fields.items())


def setup(level: str = "info", *, stream: TextIO | None = None, under_systemd: bool) -> None:
    """Send every record to `stream` (stderr by default); replaces earlier handlers."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_ServiceFormatter(priority_prefix=under_systemd))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # asyncssh tells every command of every turn.
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)

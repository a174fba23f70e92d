"""Payloads as people give them on the command line: JSON, a file, or standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from swarm.errors import ConfigError


def read_payload(text: str) -> dict[str, Any]:
    """`{...}`, `@FILE` or `-`, as one JSON object.

    Raises:
        ConfigError: there is no such file, or no object in it.
    """
    where = "PAYLOAD"
    try:
        if text == "-":
            where, text = "standard input", sys.stdin.read()
        elif text.startswith("@"):
            where = text[1:]
            text = Path(where).read_text(encoding="utf-8")
        document = json.loads(text)
    except OSError as exc:
        raise ConfigError.of(where, str(exc.strerror), "a file to read") from exc
    except (ValueError, RecursionError) as exc:
        raise ConfigError.of(where, f"no JSON ({exc})", "one JSON object") from exc
    if not isinstance(document, dict):
        raise ConfigError.of(where, type(document).__name__, "one JSON object")
    return document

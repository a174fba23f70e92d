"""What `swarm-unitctl watch` tells of a host, line by line."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from tests.builders import make_status

#: What the host's clock shows at `NOW` of ours.
HOST_NOW = 100.0


def entry(number: int = 1, *, word: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """An instance that was idle at 40 s of the host's clock and said so at 99 s."""
    status = asdict(make_status(number=number, pid=1000 + number, idle_since=40.0, **word or {}))
    return {
        "pool": "browser",
        "number": number,
        "active_state": "active",
        "sub_state": "running",
        "result": "success",
        "main_pid": 1000 + number,
        "exit_status": 0,
        "state_changed_at": 30.0,
        "status": status,
        **fields,
    }


def line(sequence: int = 0, *, now: float = HOST_NOW, **fields: Any) -> bytes:
    document = {"sequence": sequence, "now": now, "memory_available_mb": 4096, **fields}
    if sequence == 0:
        document = {"version": 1, "instances": [], **document}
    return json.dumps(document).encode()

"""What `swarm-unitctl` says to the instances of its host, each by its own socket.

Standard library only, as all that `swarm-unitctl` imports.
"""

from __future__ import annotations

import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

from swarm.unit_entry import PROTOCOL_VERSION

_SOCKET = re.compile(r"(?P<pool>[a-z][a-z0-9-]{0,31})-(?P<number>[1-9][0-9]?)\.sock")
#: Seconds for all instances of the host to answer. One looks for a task for up to five.
_ANSWER_S = 7.0
_LONGEST_ANSWER = 65_536


class InstanceError(Exception):
    """The instance did not do it, or its answer proves nothing; the message says why."""


def cancel(task_id: str, control_directory: Path) -> dict[str, Any]:
    """Ask every instance here to give the task up, all at once; what each of them answered."""
    request = {"version": PROTOCOL_VERSION, "id": task_id, "verb": "cancel", "task_id": task_id}
    line = json.dumps(request).encode() + b"\n"
    asked: list[tuple[dict[str, Any], socket.socket | str]] = []
    for path in sorted(control_directory.glob("*.sock")):
        if (name := _SOCKET.fullmatch(path.name)) is not None:
            instance = {"pool": name["pool"], "number": int(name["number"])}
            if (asked_of := _ask(path, line)) is not None:
                asked.append((instance, asked_of))
    deadline = time.monotonic() + _ANSWER_S
    instances = [{**instance, **_read_answer(asked_of, deadline)} for instance, asked_of in asked]
    return {"version": PROTOCOL_VERSION, "instances": instances}


def _ask(path: Path, line: bytes) -> socket.socket | str | None:
    """The connection on which an answer will come, or why none will; None without an instance."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(1.0)
        connection.connect(str(path))
        connection.sendall(line)
    except (ConnectionRefusedError, FileNotFoundError):
        # Its instance was killed, or has just ended: it has nothing any more.
        connection.close()
        return None
    except OSError as exc:
        connection.close()
        return exc.strerror or str(exc)
    return connection


def _read_answer(connection: socket.socket | str, deadline: float) -> dict[str, Any]:
    if isinstance(connection, str):
        return {"error": connection}
    with connection:
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            with connection.makefile("rb") as lines:
                answer = json.loads(lines.readline(_LONGEST_ANSWER))
            return {"outcome": answer["outcome"]} if answer["ok"] else {"error": answer["error"]}
        except TimeoutError:
            return {"error": f"no answer in {_ANSWER_S:g} s"}
        except (OSError, ValueError, KeyError, TypeError) as exc:
            return {"error": f"no answer that is understood: {exc}"}


def converse(path: Path, verb: str) -> dict[str, Any]:
    """What the instance behind the socket answers to `drain` or `undrain`.

    Returns:
        `state`, `sequence`, `since` (its monotonic clock, in seconds) and `pid`.

    Raises:
        InstanceError: nobody answered, or not this request, or it refused.
    """
    # Whatever was said before this moment has another id.
    request_id = f"{os.getpid()}-{time.monotonic_ns()}"
    request = {"version": PROTOCOL_VERSION, "id": request_id, "verb": verb}
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_S)
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                reply = json.loads(lines.readline(_LONGEST_ANSWER))
        if reply["id"] != request_id:
            raise InstanceError(f"{path.stem} answered another request: {reply['id']!r:.100}")
        if not reply["ok"]:
            raise InstanceError(f"{path.stem}: {reply['error']!s:.500}")
        return {name: reply[name] for name in ("state", "sequence", "since", "pid")}
    except TimeoutError as exc:
        raise InstanceError(f"{path.stem}: no answer in {_ANSWER_S:g} s") from exc
    except OSError as exc:
        raise InstanceError(f"{path.stem} does not answer: {exc.strerror or exc}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise InstanceError(f"{path.stem}: no answer that is understood: {exc}") from exc

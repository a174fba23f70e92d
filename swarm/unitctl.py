"""`swarm-unitctl`: the only program the scaler may run on a host.

Behind an SSH forced command it parses SSH_ORIGINAL_COMMAND itself; no shell sees it. It holds
no credentials: polkit decides what its user may start and stop. Kept to the standard library,
and to its lighter modules, because it is started for every command and `watch` stays.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from swarm import witness
from swarm.system_bus import BusError
from swarm.unit_entry import (
    PROTOCOL_VERSION,
    UNIT_PATTERN,
    instance_of,
    memory_available_mb,
    pressures,
)
from swarm.unit_sockets import InstanceError, cancel, converse
from swarm.unit_watch import RequestError, Words, watch

STATUS_DIRECTORY = Path("/run/swarm/instances")
CONTROL_DIRECTORY = Path("/run/swarm/control")

_SYSTEMCTL_TIMEOUT_S = 30
_PROPERTIES = (
    "Id",
    "ActiveState",
    "SubState",
    "Result",
    "MainPID",
    "ExecMainStatus",
    "StateChangeTimestampMonotonic",
    "ControlGroup",
)
_POOL = re.compile(r"[a-z][a-z0-9-]{0,31}")
_NUMBER = re.compile(r"[1-9][0-9]?")
_COUNT = re.compile(r"[1-9][0-9]{0,17}")
_TASK_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,199}")

Verb = Literal["list", "watch", "start", "stop", "cancel", "drain", "undrain"]
#: Those about one instance, and nothing else.
_INSTANCE_VERBS: Mapping[str, Verb] = {
    "start": "start",
    "drain": "drain",
    "undrain": "undrain",
}


class Command(NamedTuple):
    """A parsed request.

    `pool` and `number` are of what names an instance, `pid` and `sequence` of `stop`: as which it
    has told that it is idle. `task_id` is of `cancel`.
    """

    verb: Verb
    pool: str | None = None
    number: int | None = None
    pid: int = 0
    sequence: int = 0
    task_id: str = ""

    @property
    def unit(self) -> str:
        return f"celery-{self.pool}@{self.number}.service"


class RefusedError(Exception):
    """The request is none of the verbs, or names no possible instance."""


class SystemctlError(Exception):
    """systemctl did not do it; the message is systemctl's own."""


def parse_command(words: Sequence[str]) -> Command:
    """`["start", "browser", "3"]` -> Command("start", "browser", 3).

    Raises:
        RefusedError: for anything else than the verbs in their exact form.
    """
    match list(words):
        case ["list" | "watch" as verb]:
            return Command("list" if verb == "list" else "watch")
        case [verb, pool, number] if (
            verb in _INSTANCE_VERBS and _POOL.fullmatch(pool) and _NUMBER.fullmatch(number)
        ):
            return Command(_INSTANCE_VERBS[verb], pool, int(number))
        case ["stop", pool, number, pid, sequence] if (
            _POOL.fullmatch(pool)
            and _NUMBER.fullmatch(number)
            and _COUNT.fullmatch(pid)
            and _COUNT.fullmatch(sequence)
        ):
            return Command("stop", pool, int(number), int(pid), int(sequence))
        case ["cancel", task_id] if _TASK_ID.fullmatch(task_id):
            return Command("cancel", task_id=task_id)
    raise RefusedError(
        f"refused: {' '.join(words)[:120]!r}; expected: list | watch | start POOL N "
        "| drain POOL N | undrain POOL N | stop POOL N PID SEQUENCE | cancel TASK_ID "
        "with N from 1 to 99"
    )


def parse_show(output: str) -> list[dict[str, Any]]:
    """Turn `systemctl show` (blocks of `Key=value`, an empty line between) into instances.

    Units that are not instances are passed over; so are instances that are not loaded, of which
    `Id` is empty.
    """
    instances = []
    for block in output.split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        instance = instance_of(properties.get("Id", ""))
        if instance is None:
            continue
        instances.append(
            {
                "pool": instance[0],
                "number": instance[1],
                "active_state": properties.get("ActiveState", ""),
                "sub_state": properties.get("SubState", ""),
                "result": properties.get("Result", ""),
                "main_pid": _integer(properties.get("MainPID")),
                "exit_status": _integer(properties.get("ExecMainStatus")),
                "state_changed_at": _integer(properties.get("StateChangeTimestampMonotonic")) / 1e6,
                "control_group": properties.get("ControlGroup", ""),
            }
        )
    return instances


def _is_failed(unit: str) -> bool:
    return _systemctl("show", unit, "--property", "ActiveState").strip() == "ActiveState=failed"


def _integer(text: str | None) -> int:
    """Systemd prints "[not set]" for numbers it does not know."""
    return int(text) if text and text.isdecimal() else 0


def list_instances(status_directory: Path = STATUS_DIRECTORY) -> dict[str, Any]:
    """Every instance systemd knows here, with the status file of each that runs.

    Of one that is drained it also tells what its cgroup holds.

    Raises:
        SystemctlError: systemctl failed or did not answer.
    """
    show = _systemctl("show", UNIT_PATTERN, "--property", ",".join(_PROPERTIES))
    instances = parse_show(show)
    words = Words(str(status_directory))
    for instance in instances:
        instance["status"] = status = words.of(instance)
        if isinstance(status, dict) and status.get("drain") is not None:
            instance["witness"] = _look(instance)
    return {
        "version": PROTOCOL_VERSION,
        "now": time.monotonic(),
        "memory_available_mb": memory_available_mb(),
        **pressures(),
        "instances": instances,
    }


def _look(instance: Mapping[str, Any]) -> dict[str, Any] | None:
    seen = witness.look(instance["control_group"], instance["main_pid"])
    return None if seen is None else seen._asdict()


def _systemctl(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["systemctl", "--no-ask-password", *arguments],
            capture_output=True,
            text=True,
            timeout=_SYSTEMCTL_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as exc:
        raise SystemctlError("systemctl is not installed") from exc
    except subprocess.TimeoutExpired as exc:
        raise SystemctlError(f"systemctl did not answer in {_SYSTEMCTL_TIMEOUT_S} s") from exc
    if done.returncode != 0:
        raise SystemctlError(done.stderr.strip() or f"systemctl exited with {done.returncode}")
    return done.stdout


def tell(command: Command, control_directory: Path = CONTROL_DIRECTORY) -> dict[str, Any]:
    """Drain an instance, or cancel that: what it answered, and what its cgroup held after it.

    Raises:
        InstanceError: nobody answered, or not so that it proves anything.
        SystemctlError: systemctl failed or did not answer.
    """
    answer = converse(control_directory / f"{command.pool}-{command.number}.sock", command.verb)
    show = _systemctl("show", command.unit, "--property", ",".join(_PROPERTIES))
    instance = next(iter(parse_show(show)), None)
    if instance is None or instance["main_pid"] != answer["pid"]:
        raise InstanceError(f"process {answer['pid']} answered, which {command.unit} does not have")
    return {
        "version": PROTOCOL_VERSION,
        "now": time.monotonic(),
        "pool": command.pool,
        "number": command.number,
        "active_state": instance["active_state"],
        **answer,
        "witness": _look(instance),
    }


def stop(command: Command, control_directory: Path = CONTROL_DIRECTORY) -> None:
    """Have systemd stop an instance that drains and is as idle as it was when it told so.

    That is asked of it here, where nothing can delay the stop any more. Asking renews its drain: it
    takes no task before systemd's signal has come.

    Raises:
        InstanceError: it has consumed since, it is another process by now, or nobody answered.
        SystemctlError: systemctl failed or did not answer.
    """
    answer = converse(control_directory / f"{command.pool}-{command.number}.sock", "drain")
    now = (answer["state"], answer["pid"], answer["sequence"])
    if now != ("idle", command.pid, command.sequence):
        raise InstanceError(
            f"not stopped: {command.unit} is {now[0]} as process {now[1]} under number {now[2]}, "
            f"and was idle as process {command.pid} under number {command.sequence}"
        )
    _systemctl("stop", "--no-block", command.unit)


def run(
    command: Command,
    status_directory: Path = STATUS_DIRECTORY,
    control_directory: Path = CONTROL_DIRECTORY,
) -> str:
    """Do it, whatever it is but `watch`, and return what to print.

    Raises:
        SystemctlError: systemd refused or failed.
        InstanceError: the instance refused, or gave no answer that proves anything.
    """
    if command.verb == "list":
        return json.dumps(list_instances(status_directory))
    if command.verb == "cancel":
        return json.dumps(cancel(command.task_id, control_directory))
    if command.verb in ("drain", "undrain"):
        return json.dumps(tell(command, control_directory))
    # Starting waits for the browser, and stopping for its end; whoever asked reads the outcome from
    # the next list instead of holding a connection open.
    if command.verb == "stop":
        stop(command, control_directory)
    else:
        if _is_failed(command.unit):
            # A unit that failed too often refuses to start until its counter is reset. When that
            # is due is the scaler's decision.
            _systemctl("reset-failed", command.unit)
        _systemctl("start", "--no-block", command.unit)
    return json.dumps({"version": PROTOCOL_VERSION, "ok": True})


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    status_directory: Path = STATUS_DIRECTORY,
    control_directory: Path = CONTROL_DIRECTORY,
) -> int:
    """Exit 0 done, 1 systemd or the instance refused or failed, 2 the request was refused."""
    words = list(sys.argv[1:] if argv is None else argv)
    original = environ.get("SSH_ORIGINAL_COMMAND")
    if original is not None:
        words = original.split()
        # The forced command lets a client call this program by its name, as an interactive user.
        if words[:1] == ["swarm-unitctl"]:
            words = words[1:]
    try:
        command = parse_command(words)
        if command.verb == "watch":
            watch(str(status_directory), environ=environ)
        else:
            print(run(command, status_directory, control_directory))
    except (RefusedError, RequestError) as exc:
        print(f"swarm-unitctl: {exc}", file=sys.stderr)
        return 2
    except (SystemctlError, InstanceError, BusError, OSError) as exc:
        print(f"swarm-unitctl: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

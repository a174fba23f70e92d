"""A `systemctl` that keeps units as files, answers as the real one does, and can fail or hang."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

_SCRIPT = """#!/bin/sh
state={state}
echo "$@" >> "$state/calls"
if [ -e "$state/hang" ]; then exec sleep 20; fi
if [ -e "$state/fail" ]; then cat "$state/fail" >&2; exit 1; fi
[ "$1" = --no-ask-password ] || {{ echo "would ask for a password" >&2; exit 1; }}
verb=$2; shift 2
case "$verb" in
  show)
    case "$1" in
      *'*'*) for unit in "$state"/units/*; do
          [ -e "$unit" ] || continue
          [ -z "$again" ] || echo
          again=yes
          cat "$unit"
        done ;;
      *) if [ ! -e "$state/units/$1" ]; then echo ActiveState=inactive
         elif [ "$3" = ActiveState ]; then grep '^ActiveState=' "$state/units/$1"
         else cat "$state/units/$1"; fi ;;
    esac ;;
  start)
    [ "$1" = --no-block ] || exit 64
    if [ ! -e "$state/units/$2" ]; then
      sed "s/UNIT/$2/" "$state/starting" > "$state/units/$2"
    elif grep -q '^ActiveState=failed' "$state/units/$2"; then
      echo "Job for $2 failed: start of the service was attempted too often." >&2; exit 1
    fi ;;
  stop)
    [ "$1" = --no-block ] || exit 64
    rm -f "$state/units/$2" ;;
  reset-failed) rm -f "$state/units/$1" ;;
  *) echo "Unknown command verb $verb." >&2; exit 1 ;;
esac
"""


class StubSystemctl:
    """Lives in `directory`; put `path` in front of PATH to have it found."""

    def __init__(self, directory: Path) -> None:
        self.state = directory / "systemd"
        (self.state / "units").mkdir(parents=True)
        self.path = directory / "stub-bin"
        self.path.mkdir()
        program = self.path / "systemctl"
        program.write_text(_SCRIPT.format(state=self.state), encoding="utf-8")
        program.chmod(0o755)
        starting = show("UNIT", active_state="activating", sub_state="start", changed_ago_s=0)
        (self.state / "starting").write_text(starting, encoding="utf-8")

    @property
    def bus(self) -> Path:
        """Where a `StubBus` serves, if there is one."""
        return self.state / "bus"

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, **self.own_environ}

    @property
    def own_environ(self) -> dict[str, str]:
        """What leads to it."""
        return {
            "PATH": f"{self.path}:{os.environ['PATH']}",
            "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.bus}",
        }

    @property
    def calls(self) -> list[str]:
        path = self.state / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def add(self, unit: str, **properties: Any) -> None:
        path = self.state / "units" / unit
        scratch = self.state / unit
        scratch.write_text(show(unit, **properties), encoding="utf-8")
        scratch.replace(path)

    def fail(self, message: str) -> None:
        (self.state / "fail").write_text(f"{message}\n", encoding="utf-8")

    def hang(self) -> None:
        (self.state / "hang").touch()

    def recover(self) -> None:
        for name in ("fail", "hang"):
            (self.state / name).unlink(missing_ok=True)

    def remove(self, unit: str) -> None:
        (self.state / "units" / unit).unlink()


def show(
    unit: str,
    *,
    active_state: object = "active",
    sub_state: object = "running",
    result: object = "success",
    main_pid: object = 4711,
    exit_status: object = 0,
    changed_ago_s: float = 60,
    job: str | None = None,
    control_group: object = "",
) -> str:
    """What `systemctl show` prints of one unit, in systemd's own order."""
    changed_at = int((time.monotonic() - changed_ago_s) * 1e6)
    return (
        f"Result={result}\nMainPID={main_pid}\nExecMainStatus={exit_status}\nId={unit}\n"
        f"ActiveState={active_state}\nSubState={sub_state}\nControlGroup={control_group}\n"
        f"StateChangeTimestampMonotonic={changed_at}\n"
    ) + (f"Job={job}\n" if job else "")

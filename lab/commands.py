"""Run other programs, bounded in time, with failures that say what failed."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

DEFAULT_TIMEOUT_S = 120.0


class LabError(Exception):
    """The lab could not do what was asked."""


class UnmetRequirementError(LabError):
    """This machine lacks something the lab needs; the message says what to do."""


def run(argv: Sequence[str], *, timeout_s: float = DEFAULT_TIMEOUT_S, stdin: str = "") -> str:
    """Run argv and return its stdout; raise LabError when it fails, hangs or does not exist."""
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise LabError(f"no end after {timeout_s:.0f} s: {shlex.join(argv)}") from exc
    except OSError as exc:
        raise LabError(f"cannot run {argv[0]}: {exc.strerror}") from exc
    if done.returncode != 0:
        said = " / ".join(done.stderr.strip().splitlines()[-3:]) or "(it said nothing)"
        raise LabError(f"{shlex.join(argv[:4])} exited {done.returncode}: {said}")
    return done.stdout


def run_logged(argv: Sequence[str], log: Path, *, timeout_s: float) -> None:
    """Run a long command with its output in a file, which the error then names."""
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise LabError(f"{argv[0]} did not end in {timeout_s:.0f} s, see {log}") from exc
        except OSError as exc:
            raise LabError(f"cannot run {argv[0]}: {exc.strerror}") from exc
    if done.returncode != 0:
        raise LabError(f"{argv[0]} exited {done.returncode}, see {log}")

"""The few variables that are ours in a `.env` file; everything else in it is passed over."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path

from swarm.errors import ConfigError, Problem

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")


def named_env_file(environ: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    """What the file that `SWARM_ENV_FILE` names says of these variables.

    Raises:
        ConfigError: it is not there, or cannot be read.
    """
    named = environ.get("SWARM_ENV_FILE")
    return _read(Path(named), names, where=f"SWARM_ENV_FILE: {named}") if named else {}


def env_file_here(names: Collection[str], path: Path = Path(".env")) -> dict[str, str]:
    """What `.env` in the working directory says of these variables, if there is one.

    Raises:
        ConfigError: others could have written it, or it cannot be read.
    """
    try:
        status = path.stat()
    except OSError:
        return {}
    if status.st_mode & stat.S_IWOTH or status.st_uid not in {0, os.geteuid()}:
        expected = "a file that only you can write: whoever can, chooses where your tasks go"
        raise ConfigError([Problem(str(path.absolute()), "one that others can write", expected)])
    return _read(path, names, where=str(path.absolute()))


def _read(path: Path, names: Collection[str], *, where: str) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8"
        raise ConfigError([Problem(where, f"no file to read ({reason})", "a .env file")]) from exc
    found = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None or match[1] not in names:
            continue
        value = _unquoted(match[2])
        if "${" in value:
            expected = "the value itself: nothing is filled in for ${...}"
            raise ConfigError([Problem(f"{where}: {match[1]}", "a reference", expected)])
        found[match[1]] = value
    return found


def _unquoted(text: str) -> str:
    """As `docker compose` and python-dotenv read it: quotes go, and comments after a space."""
    if quoted := re.fullmatch(r"""(["'])(.*?)\1\s*(#.*)?""", text):
        return quoted[2]
    return re.sub(r"(^|\s+)#.*", "", text)

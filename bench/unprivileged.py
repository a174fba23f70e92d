"""Browser benchmarks run as nobody: Chromium refuses its sandbox to root, and it costs memory."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
import tempfile
from pathlib import Path

_REPOSITORY = Path(__file__).parents[1]


def add_argument(parser: argparse.ArgumentParser) -> None:
    """`--as-root`."""
    parser.add_argument(
        "--as-root", action="store_true", help="stay root, and do without Chromium's sandbox"
    )


def can_sandbox() -> bool:
    """Whether browsers of this process have their sandbox."""
    return os.geteuid() != 0


def leave_root(options: argparse.Namespace) -> None:
    """Become nobody, where this is root and is not to stay it.

    Exits with status 2 where nobody cannot read the repository.
    """
    if options.as_root or os.geteuid() != 0:
        return
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
    os.environ["HOME"] = tempfile.gettempdir()
    if not os.access(_REPOSITORY / "bench", os.R_OK | os.X_OK):
        print(
            f"{_REPOSITORY}: the user nobody, who has Chromium's sandbox, cannot read it; "
            "clone it to a place for all, or give --as-root",
            file=sys.stderr,
        )
        sys.exit(2)

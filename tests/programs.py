"""Programs that tests need on this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium-headless-shell")
#: Unpacked there by `make setup`, as installing it would start a server.
NGINX = Path(__file__).parents[1] / ".cache" / "nginx" / "usr" / "sbin" / "nginx"
SQUID = NGINX.parents[3] / "squid" / "usr" / "sbin" / "squid"


def need(program: Path, package: str) -> None:
    """Skip where a tool is missing, but never in continuous integration."""
    if program.exists():
        return
    message = f"{program} is missing: apt install {package}"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)

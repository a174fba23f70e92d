"""The encoder for `capture.video`: Debian's ffmpeg, lent to Playwright.

Playwright records with a build of ffmpeg of its own, which it fetches from its makers' servers and
looks for in a directory by its revision. Any ffmpeg with VP8 does the same work.
"""

from __future__ import annotations

import json
import os
from collections.abc import MutableMapping
from pathlib import Path

import playwright

from swarm.settings import BrowserSettings

_REVISIONS = Path(playwright.__file__).parent / "driver" / "package" / "browsers.json"


def can_record(settings: BrowserSettings) -> bool:
    """Whether this host has the program that videos need."""
    return os.access(settings.ffmpeg, os.X_OK)


def lend(
    settings: BrowserSettings, directory: Path, environ: MutableMapping[str, str] = os.environ
) -> None:
    """Let a driver that starts later in `environ` find ffmpeg, by a link below `directory`.

    Does nothing where there is no ffmpeg. The browser is started by its path and is not looked for.
    """
    if not can_record(settings):
        return
    place = directory / "playwright" / f"ffmpeg-{_revision()}"
    place.mkdir(parents=True)
    (place / "ffmpeg-linux").symlink_to(settings.ffmpeg)
    environ["PLAYWRIGHT_BROWSERS_PATH"] = str(place.parent)


def _revision() -> str:
    described = json.loads(_REVISIONS.read_text(encoding="utf-8"))["browsers"]
    return next(str(entry["revision"]) for entry in described if entry["name"] == "ffmpeg")

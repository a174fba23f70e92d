"""Upstream's tests: part of the source distributions that `sources.txt` pins, under .cache."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
HERE = Path(__file__).parent
CACHE = REPOSITORY / ".cache" / "upstream"

_SOURCE = re.compile(r"^(\w+)==(\S+) --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)


def fetch() -> None:
    """Have the pinned releases' tests under .cache.

    Raises:
        SystemExit: other releases are installed, or a download is not what was pinned.
    """
    sources = _SOURCE.findall((HERE / "sources.txt").read_text(encoding="utf-8"))
    for project, release, _ in sources:
        if version(project) != release:
            raise SystemExit(
                f"{project} {version(project)} is installed, tests/upstream/sources.txt pins "
                f"{release}: pin the installed one and look at what changed in its tests"
            )
    if any(not _is_unpacked(*source) for source in sources):
        # pip wants every source anew where one is missing; it has them in its cache.
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--no-binary", ":all:", "--require-hashes", "--dest", str(CACHE)),
                *("--requirement", str(HERE / "sources.txt")),
            ],
            check=True,
        )
    for source in sources:
        if not _is_unpacked(*source):
            _unpack(*source)


def tree(project: str) -> Path:
    """Where the tests of the installed release lie."""
    return CACHE / f"{project}-{version(project)}"


def _is_unpacked(project: str, release: str, digest: str) -> bool:
    mark = CACHE / f"{project}-{release}" / "sha256"
    return mark.exists() and mark.read_text(encoding="ascii") == digest


def _unpack(project: str, release: str, digest: str) -> None:
    """The tests alone: beside the package itself they would import that, not what is installed."""
    archive = CACHE / f"{project}-{release}.tar.gz"
    if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
        raise SystemExit(f"{archive} is not what tests/upstream/sources.txt pins")
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(f"{project}-{release}/t/"):
                target = CACHE / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                content = tar.extractfile(member)
                assert content is not None
                target.write_bytes(content.read())
    (CACHE / f"{project}-{release}" / "sha256").write_text(digest, encoding="ascii")

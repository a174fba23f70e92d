#!/usr/bin/env python3
"""Build the offline wheelhouse that the role `release` installs on the hosts.

It holds every package of requirements/runtime.txt as a wheel for the hosts' Python, the project's
own wheel and uv's, and requirements.txt with a hash for each. Which index packages come from is
pip's configuration alone. The last line of output is one JSON object.

Run it with the interpreter of the development environment: it needs pip, hatchling, packaging.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

# Debian 12: the hosts' Python, not the one that runs this (markers differ even between 3.11.2
# and 3.11.3), and its glibc.
PYTHON_VERSION = "3.11.2"
GLIBC_MINOR = 36
MACHINE = "x86_64"
TARGET = f"cpython-{PYTHON_VERSION}-manylinux_2_{GLIBC_MINOR}_{MACHINE}"
MARKERS = {
    "extra": "",
    "implementation_name": "cpython",
    "implementation_version": PYTHON_VERSION,
    "os_name": "posix",
    "platform_machine": MACHINE,
    "platform_python_implementation": "CPython",
    "platform_release": "",
    "platform_system": "Linux",
    "platform_version": "",
    "python_full_version": PYTHON_VERSION,
    "python_version": PYTHON_VERSION.rpartition(".")[0],
    "sys_platform": "linux",
}
# Any fixed moment: without one the wheel's bytes, and so the release's name, change every time.
SOURCE_DATE_EPOCH = "1580601600"
KEPT = 5


class BuildError(Exception):
    """The wheelhouse could not be built."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One line of a lock: `name==version` with the hashes of its files."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the package."""
        return self.requirement.name

    def applies(self) -> bool:
        """Whether the hosts need it."""
        marker = self.requirement.marker
        return marker is None or marker.evaluate(MARKERS)

    def render(self) -> str:
        """The line without its marker, which has been judged."""
        hashes = "".join(f" --hash={digest}" for digest in self.hashes)
        return f"{self.name}{self.requirement.specifier}{hashes}\n"


def parse_lock(text: str) -> Iterator[Pin]:
    """Every pin of a requirements file; one without a hash is an error."""
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        requirement, *hashes = (part.strip() for part in line.split("--hash="))
        if not hashes:
            raise BuildError(f"the lock has no hash for {requirement!r}")
        yield Pin(Requirement(requirement), tuple(hashes))


def digest_of(*parts: bytes) -> str:
    """One hash over several parts, each kept apart from the next."""
    total = hashlib.sha256()
    for part in parts:
        total.update(hashlib.sha256(part).digest())
    return total.hexdigest()


def digest_sources(root: Path) -> str:
    """One hash over all that goes into the project's wheel."""
    sources = [path for path in (root / "swarm").rglob("*") if path.is_file()]
    sources = [path for path in sources if "__pycache__" not in path.parts]
    sources += [root / name for name in ("pyproject.toml", "LICENSE", ".gitignore")]
    present = sorted(path for path in sources if path.exists())
    names_and_bytes = ((str(p.relative_to(root)).encode(), p.read_bytes()) for p in present)
    return digest_of(*(part for pair in names_and_bytes for part in pair))


def pip(*arguments: str) -> None:
    """Run pip with the user's configuration; its words are shown only when it fails."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH}
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(
        argv, env=environment, check=False, text=True, capture_output=True, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        print(done.stdout, done.stderr, file=sys.stderr, sep="")
        raise BuildError(f"pip {arguments[0]} exited {done.returncode}")


def publish(staging: Path, target: Path) -> Path:
    """Rename a finished directory into its place, unless another run was faster."""
    staging.chmod(0o755)
    try:
        staging.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    return target


def make_staging(directory: Path) -> Path:
    """A new directory beside the one it will become."""
    directory.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=".partial-", dir=directory))


def build_project(root: Path, cache: Path) -> Path:
    """The project's wheel; built only when a source has changed."""
    home = cache / "projects"
    built = home / digest_sources(root)[:16]
    if not built.is_dir():
        staging = make_staging(home)
        try:
            options = ("--no-deps", "--no-build-isolation", "--no-index", "--no-cache-dir")
            pip("wheel", *options, "--wheel-dir", str(staging), str(root))
            publish(staging, built)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        prune(home)
    return next(built.glob("*.whl"))


def download(pins: Sequence[Pin], cache: Path) -> Path:
    """A directory with one wheel for each pin; fetched only when the pins have changed."""
    home = cache / "dependencies"
    text = "".join(pin.render() for pin in pins)
    fetched = home / digest_of(text.encode(), TARGET.encode())[:16]
    if not fetched.is_dir():
        staging = make_staging(home)
        try:
            lock = staging / "lock.txt"
            lock.write_text(text, encoding="utf-8")
            platforms = [f"--platform=manylinux_2_{n}_{MACHINE}" for n in range(GLIBC_MINOR, 4, -1)]
            platforms += [f"--platform={old}_{MACHINE}" for old in ("manylinux2014", "linux")]
            options = ("--no-deps", "--require-hashes", "--only-binary=:all:")
            target = ("--implementation=cp", f"--python-version={PYTHON_VERSION}", *platforms)
            pip("download", *options, *target, "--dest", str(staging), "-r", str(lock))
            lock.unlink()
            publish(staging, fetched)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        prune(home)
    return fetched


def assemble(target: Path, project: Path, dependencies: Path, requirements: str) -> None:
    """Put a wheelhouse together out of links."""
    staging = make_staging(target.parent)
    try:
        for wheel in (project, *dependencies.glob("*.whl")):
            link_or_copy(wheel, staging / wheel.name)
        (staging / "requirements.txt").write_text(requirements, encoding="utf-8")
        publish(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system has them."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def prune(home: Path) -> None:
    """Keep the newest directories; what others packed from one (`<name>.tar`) goes with it."""
    finished = [path for path in home.iterdir() if path.is_dir() and path.name[0] != "."]
    for old in sorted(finished, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        old.with_name(f"{old.name}.tar").unlink(missing_ok=True)
        shutil.rmtree(old, ignore_errors=True)


def build(root: Path, cache: Path) -> dict[str, str]:
    """Build the wheelhouse, or find it built."""
    lock = (root / "requirements" / "runtime.txt").read_bytes()
    project = build_project(root, cache)
    wheel = project.read_bytes()
    release_id = digest_of(wheel, lock, TARGET.encode())[:12]
    target = cache / "wheelhouses" / release_id
    if not target.is_dir():
        pins = [pin for pin in parse_lock(lock.decode()) if pin.applies()]
        development = parse_lock((root / "requirements" / "dev.txt").read_text(encoding="utf-8"))
        tool = next(pin for pin in development if pin.name == "uv")
        name, version = project.name.split("-")[:2]
        own = Pin(
            Requirement(f"{name}=={version}"), (f"sha256:{hashlib.sha256(wheel).hexdigest()}",)
        )
        requirements = "".join(pin.render() for pin in (*pins, own))
        assemble(target, project, download([*pins, tool], cache), requirements)
        prune(target.parent)
    os.utime(target)
    return {
        "release_id": release_id,
        "directory": str(target),
        "requirements": str(target / "requirements.txt"),
    }


def default_cache() -> Path:
    """Outside the clone, so that every clone shares it."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "swarm"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; exit 1 with one line on stderr when it fails."""
    parser = argparse.ArgumentParser(description="Build the offline wheelhouse for the hosts.")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--cache", type=Path, default=default_cache())
    options = parser.parse_args(argv)
    try:
        built = build(options.root.resolve(), options.cache.absolute())
    except (BuildError, OSError) as exc:
        print(f"wheelhouse: {exc}", file=sys.stderr)
        return 1
    print(json.dumps(built))
    return 0


if __name__ == "__main__":
    sys.exit(main())

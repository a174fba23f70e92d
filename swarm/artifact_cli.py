"""`swarm artifact`: people fetch what tasks left in the store, whichever store it is."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from swarm.environment import read_artifacts_credential, read_settings
from swarm.errors import ConfigError, Problem

if TYPE_CHECKING:
    from swarm.browse.artifacts import ArtifactStore


@click.group()
def artifact() -> None:
    """Files that tasks left: screenshots, pages, traces, downloads."""


@artifact.command("get")
@click.argument("artifact_id", metavar="ID")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Where to; - for standard output. Without it ID.EXTENSION in this directory.",
)
@click.option("-f", "--force", is_flag=True, help="Replace a file that is there.")
def artifact_get(artifact_id: str, output: str | None, force: bool) -> None:  # noqa: FBT001 - click
    """Fetch one by its id and print the name of the file, which is whole or not there.

    Exit 1 when there is none of this id, 3 when the store is away.
    """
    # `swarm status` must not load Playwright's and the HTTP client's worlds.
    from swarm.browse.artifacts import is_artifact_id
    from swarm.browse.stores import make_store

    if not is_artifact_id(artifact_id):
        expected = "the id of an artifact, 32 hexadecimal digits"
        raise ConfigError([Problem("ID", repr(artifact_id), expected)])
    settings = read_settings().browser
    credential = read_artifacts_credential(settings, "artifacts-read")
    store = make_store(settings, host=socket.gethostname(), credential=credential)
    if output == "-":
        asyncio.run(_fetch(store, artifact_id, sys.stdout.buffer))
        return
    target = Path(output) if output else None
    if target is not None and target.exists() and not force:
        raise _taken(target)
    click.echo(_save(store, artifact_id, target, force=force))


async def _fetch(store: ArtifactStore, artifact_id: str, into: BinaryIO) -> str:
    try:
        return await store.get(artifact_id, into)
    finally:
        await store.close()


def _save(store: ArtifactStore, artifact_id: str, target: Path | None, *, force: bool) -> Path:
    """Into a scratch file first, which then gets its name in one step."""
    directory = target.parent if target else Path()
    try:
        with tempfile.TemporaryDirectory(dir=directory, prefix=".swarm-artifact-") as scratch:
            copy = Path(scratch, "copy")
            with copy.open("xb") as file:
                name = asyncio.run(_fetch(store, artifact_id, file))
            path = target or Path(name)
            if force:
                copy.replace(path)
            else:
                os.link(copy, path)
            return path
    except FileExistsError as exc:
        raise _taken(Path(exc.filename2)) from exc
    except OSError as exc:
        expected = "a directory with room for the file"
        raise ConfigError([Problem(str(directory), exc.strerror or str(exc), expected)]) from exc


def _taken(path: Path) -> ConfigError:
    expected = "a new name, or --force to replace it"
    return ConfigError([Problem(str(path), "a file that is there", expected)])

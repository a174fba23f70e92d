"""`swarm instance`: what holds for one instance alone."""

from __future__ import annotations

import click

from swarm.control_cli import as_json_option, tell


@click.group()
def instance() -> None:
    """One instance, celery-POOL@N on HOST."""


_HOST = click.argument("host")
_POOL = click.argument("pool")
_NUMBER = click.argument("number", metavar="N", type=int)


@instance.command("pin")
@_HOST
@_POOL
@_NUMBER
@as_json_option
def pin(host: str, pool: str, number: int, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Keep the scaler from stopping it, until it is unpinned."""
    tell("pin", as_json=as_json, host=host, pool=pool, number=number)


@instance.command("unpin")
@_HOST
@_POOL
@_NUMBER
@as_json_option
def unpin(host: str, pool: str, number: int, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Let the scaler stop it again."""
    tell("unpin", as_json=as_json, host=host, pool=pool, number=number)

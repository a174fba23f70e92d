"""`swarm scaler`: the daemon, and what operators tell it and ask of it."""

from __future__ import annotations

import sys

import click

from swarm.control_cli import Duration, as_json_option, tell
from swarm.replay_cli import replay


@click.group()
def scaler() -> None:
    """The daemon that starts and stops instances."""


scaler.add_command(replay)


@scaler.command("run")
@click.option("--dry-run", is_flag=True, help="Start and stop nothing; say what it would do.")
def run(dry_run: bool) -> None:  # noqa: FBT001 - click's
    """Run until told to stop.

    A dry run is in all else a scaler: the only one here, with its metrics, its socket and its
    surveys, which give back what vanished workers held.
    """
    from swarm.scaler.daemon import main as run_scaler

    sys.exit(run_scaler(dry_run=dry_run))


@scaler.command("status")
@as_json_option
def status(as_json: bool) -> None:  # noqa: FBT001 - click's
    """Show what holds by order, and what was decided last."""
    tell("status", as_json=as_json)


@scaler.command("explain")
@click.argument("pool", required=False)
@as_json_option
def explain(pool: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Show why POOL, or every pool, has so many instances, and what would change that."""
    tell("explain", as_json=as_json, pool=pool)


_FOR = click.option(
    "--for", "for_s", type=Duration(), metavar="DURATION", help="90s, 30m, 2h, 1d [default: 1h]."
)


@scaler.command("pause")
@_FOR
@as_json_option
def pause(for_s: float | None, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Start nothing and stop nothing."""
    tell("pause", as_json=as_json, for_s=for_s)


@scaler.command("pause-in")
@_FOR
@as_json_option
def pause_in(for_s: float | None, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Stop nothing; start what is needed."""
    tell("pause-in", as_json=as_json, for_s=for_s)


@scaler.command("pause-out")
@_FOR
@as_json_option
def pause_out(for_s: float | None, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Start nothing, not even a minimum; stop what is not needed."""
    tell("pause-out", as_json=as_json, for_s=for_s)


@scaler.command("resume")
@as_json_option
def resume(as_json: bool) -> None:  # noqa: FBT001 - click's
    """End every pause."""
    tell("resume", as_json=as_json)


@scaler.command("set")
@click.argument("pool")
@click.argument("instances", metavar="N|auto")
@_FOR
@as_json_option
def set_instances(
    pool: str,
    instances: str,
    for_s: float | None,
    as_json: bool,  # noqa: FBT001 - click's
) -> None:
    """Hold POOL at N instances; `auto` ends that.

    Within max_instances and what its hosts take. What is too many is stopped once it is idle.
    """
    if instances != "auto" and not instances.isdecimal():
        raise click.BadParameter(f"{instances!r} is neither a number nor auto", param_hint="N")
    count = instances if instances == "auto" else int(instances)
    tell("set", as_json=as_json, pool=pool, instances=count, for_s=for_s)


@scaler.command("drain")
@click.argument("host")
@as_json_option
def drain(host: str, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Start nothing on HOST and stop what is idle there, until it is undrained."""
    tell("drain", as_json=as_json, host=host)


@scaler.command("undrain")
@click.argument("host")
@as_json_option
def undrain(host: str, as_json: bool) -> None:  # noqa: FBT001 - click's
    """Use HOST again."""
    tell("undrain", as_json=as_json, host=host)

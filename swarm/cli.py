"""The command line: `swarm submit`, `swarm status` and the services' own entry points.

Exit status: 0 done, 1 failed, 2 bad input or configuration, 3 the broker, the store or the scaler
is away, 4 a scaler runs here already.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click

import swarm
from swarm.artifact_cli import artifact
from swarm.brokers_cli import brokers
from swarm.browse_cli import run, schema
from swarm.cancel_cli import cancel
from swarm.config import config_path, load_settings
from swarm.dead_cli import dead
from swarm.errors import ConfigError, SwarmError
from swarm.instance_cli import instance
from swarm.payloads import read_payload
from swarm.scaler_cli import scaler
from swarm.settings import TaskType
from swarm.status_cli import status


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(swarm.__version__, prog_name="swarm")
def cli() -> None:
    """A browser-automation swarm on bare VMs."""


for command in (artifact, brokers, cancel, dead, instance, run, scaler, schema, status):
    cli.add_command(command)


def main() -> None:
    """Entry point: every SwarmError becomes its message on stderr and its exit status."""
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code)
    except click.Abort:
        sys.exit(130)
    except SwarmError as exc:
        for line in str(exc).splitlines():
            click.echo(f"swarm: {line}", err=True)
        sys.exit(exc.exit_status)


@cli.command()
def worker() -> None:
    """Run one instance; its unit says which."""
    # Each command imports what it needs: `swarm status` must not load Celery and Playwright.
    from swarm.worker.main import main as run_worker

    sys.exit(run_worker())


@cli.group()
def config() -> None:
    """Questions about config.yaml."""


@config.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def config_check(file: Path | None) -> None:
    """Report every error of config.yaml at once; exit 2 when there is any."""
    path = file or config_path()
    settings = load_settings(path)
    click.echo(f"{path}: {len(settings.pools)} pools, {len(settings.hosts)} hosts, no errors")


@config.command("check-secrets")
@click.argument("file", type=click.Path(path_type=Path))
def config_check_secrets(file: Path) -> None:
    """Report every error of a file of browser secrets, without their values; exit 2 for any."""
    from swarm.browse.secrets import Secrets

    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError.of(str(file), "no text to read", "a YAML file") from exc
    Secrets.parse(text, where=str(file))
    click.echo(f"{file}: no errors")


@cli.command()
@click.argument("task_type", metavar="TYPE", type=click.Choice(["browser", "analysis"]))
@click.argument("payload")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for the result and print it.",
)
@click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Queue it only if no task had this key in the last 24 hours; the id is that task's.",
)
def submit(task_type: str, payload: str, wait_s: float, idempotency_key: str | None) -> None:
    """Queue a task and print its id.

    PAYLOAD is JSON, @FILE, or - for standard input:

    swarm submit browser '{"url": "https://example.org", "actions": [{"kind": "text"}]}'
    """
    document = read_payload(payload)
    client = _client()
    task_id = client.submit(cast("TaskType", task_type), document, idempotency_key=idempotency_key)
    if wait_s:
        _print_result(client.result(task_id, wait_s=wait_s))
    else:
        click.echo(task_id)


@cli.command()
@click.argument("task_id", metavar="ID")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait for it this long.",
)
def result(task_id: str, wait_s: float) -> None:
    """Print a task's result as JSON; exit 1 when it failed or is not there yet."""
    _print_result(_client().result(task_id, wait_s=wait_s))


def _client() -> Any:
    from swarm.celery_app import app
    from swarm.client import Client

    # Celery reads the configuration when it first needs it: now, so that its errors come whole.
    app.finalize()
    _ = app.conf.broker_url
    return Client(app)


def _print_result(result: Any) -> None:
    click.echo(json.dumps(asdict(result), indent=2))
    if result.state != "done":
        sys.exit(1)

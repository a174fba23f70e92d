"""The command line: `swarm submit`, `swarm status` and the services' own entry points.

Exit status: 0 done, 1 failed, 2 bad input or configuration, 3 the broker or the store is away.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

import swarm
from swarm.artifact_cli import artifact
from swarm.browse_cli import run, schema
from swarm.config import config_path, load_settings
from swarm.environment import read_broker, read_settings
from swarm.errors import BrokerAwayError, ConfigError, Problem, SwarmError
from swarm.payloads import read_payload
from swarm.settings import Settings, TaskType

if TYPE_CHECKING:
    from swarm.delivery.dead import DeadLetter, DeadLetters


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(swarm.__version__, prog_name="swarm")
def cli() -> None:
    """A browser-automation swarm on bare VMs."""


cli.add_command(artifact)
cli.add_command(run)
cli.add_command(schema)


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
def scaler() -> None:
    """The daemon that starts and stops instances."""


@scaler.command("run")
def scaler_run() -> None:
    """Run until told to stop."""
    from swarm.scaler.daemon import main as run_scaler

    sys.exit(run_scaler())


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


@cli.group()
def dead() -> None:
    """Tasks that could not be done: three workers died under them, unknown here, or unreadable."""


_NAMES = click.argument("names", metavar="[ID]...", nargs=-1)
_ALL = click.option("--all", "everything", is_flag=True, help="Every dead letter.")


@dead.command("list")
@click.option("--json", "as_json", is_flag=True, help="Whole entries, a line each.")
def dead_list(as_json: bool) -> None:  # noqa: FBT001 - a click option
    """List them, the oldest first."""
    with _dead_letters() as letters:
        for letter in letters.all():
            if as_json:
                click.echo(json.dumps(asdict(letter), default=str))
            else:
                click.echo(
                    f"{letter.task_id or letter.tag}  {letter.at:%Y-%m-%d %H:%M:%S}  "
                    f"{letter.task or '?'} in {letter.queue}: {letter.reason}"
                )


@dead.command("show")
@click.argument("name", metavar="ID")
def dead_show(name: str) -> None:
    """Show one by its task's id or its own tag, with its arguments and its history."""
    with _dead_letters() as letters:
        letter = letters.find(name)
    document = {**asdict(letter), "queue": letter.queue, "arguments": letter.arguments()}
    click.echo(json.dumps(document, indent=2, default=str))


@dead.command("replay")
@_NAMES
@_ALL
def dead_replay(names: tuple[str, ...], everything: bool) -> None:  # noqa: FBT001 - a click option
    """Put them back into their queues, to be tried anew."""
    with _dead_letters() as letters:
        for letter in _chosen(letters, names, everything=everything):
            if letters.replay(letter):
                click.echo(f"{letter.task_id or letter.tag} is back in {letter.queue}")


@dead.command("drop")
@_NAMES
@_ALL
def dead_drop(names: tuple[str, ...], everything: bool) -> None:  # noqa: FBT001 - a click option
    """Delete them for good."""
    with _dead_letters() as letters:
        for letter in _chosen(letters, names, everything=everything):
            if letters.drop(letter):
                click.echo(f"{letter.task_id or letter.tag} is deleted")


def _chosen(letters: DeadLetters, names: Sequence[str], *, everything: bool) -> list[DeadLetter]:
    """All are found before any is touched."""
    if everything == bool(names):
        expected = "the ids of dead letters, or --all"
        raise ConfigError([Problem("ID", "both" if names else "nothing", expected)])
    return letters.all() if everything else [letters.find(name) for name in names]


@contextmanager
def _dead_letters() -> Iterator[DeadLetters]:
    import redis

    from swarm.brokers import connect
    from swarm.delivery.dead import DeadLetters

    # A producer, as whom people submit tasks, has no right to them.
    broker = read_broker(credential="redis-url-scaler")
    try:
        with connect(broker) as client:
            yield DeadLetters(client)
    except redis.ResponseError as exc:
        raise BrokerAwayError(f"{broker.address} refused: {exc}") from exc
    except redis.RedisError as exc:
        raise BrokerAwayError(f"{broker.address} did not answer: {exc}") from exc


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="The scaler's last turn as JSON.")
def status(as_json: bool) -> None:  # noqa: FBT001 - a click option
    """Show pools, hosts and instances as the scaler last saw them."""
    settings = read_settings()
    path = settings.scaler.state_directory / "status.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(
            [
                Problem(
                    str(path),
                    "no status of a scaler",
                    "`swarm status` to run on the host where swarm-scaler.service is active",
                )
            ]
        ) from exc
    if as_json:
        click.echo(json.dumps(document))
    else:
        _print_status(document, settings)


def _print_status(document: dict[str, Any], settings: Settings) -> None:
    age_s = time.time() - document["written_at"]
    late = " (is swarm-scaler running?)" if age_s > 3 * settings.scaler.interval_s + 10 else ""
    click.echo(f"as of {age_s:.0f} s ago{late}")
    for name, pool in document["pools"].items():
        waiting = "unknown" if pool["waiting"] is None else pool["waiting"]
        click.echo(
            f"\n{name}: {pool['running']} running, {pool['desired']} desired, {waiting} waiting"
            f" ({pool['reason']})"
        )
        for host, report in document["hosts"].items():
            if not report["answers"]:
                continue
            for instance in report["instances"]:
                if instance["pool"] == name:
                    click.echo(
                        f"  celery-{name}@{instance['number']} on {host}: {instance['state']}, "
                        f"{instance['active']} active, {instance['tasks_ended']} ended"
                        + (f" ({instance['trouble']})" if instance["trouble"] else "")
                    )
    for host, report in document["hosts"].items():
        if not report["answers"]:
            click.echo(f"\n{host} does not answer: {report['reason']}")


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

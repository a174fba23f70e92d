"""`swarm run` and `swarm schema`: write and try payloads without Redis, Celery or a deployment."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from swarm.config import config_path
from swarm.environment import read_browser_secrets, read_settings
from swarm.errors import ConfigError
from swarm.payloads import read_payload
from swarm.settings import BrowserSettings

_SCHEMAS = ("browser", "analysis", "result")


@click.command("run")
@click.argument("payload")
@click.option("--headed", is_flag=True, help="Show the browser, which needs a full Chromium.")
@click.option("--trace", is_flag=True, help="Record a trace, for `playwright show-trace`.")
@click.option(
    "--artifacts",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("artifacts"),
    show_default=True,
    help="Directory for screenshots and the like; made when it is missing.",
)
@click.option(
    "--browser",
    "executable",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The Chromium to use.  [default: browser.executable of config.yaml]",
)
@click.option(
    "--no-sandbox", is_flag=True, help="Without Chromium's sandbox: as root it cannot have one."
)
def run(
    payload: str,
    headed: bool,  # noqa: FBT001 - a click option
    trace: bool,  # noqa: FBT001
    artifacts: Path,
    executable: Path | None,
    no_sandbox: bool,  # noqa: FBT001
) -> None:
    """Do a browser job here and now, and print its result.

    PAYLOAD is as for `swarm submit browser`. A config.yaml is used where there is one. Exit 1 when
    the job failed.
    """
    from swarm.browse.payload import parse_browser_job

    document = read_payload(payload)
    if trace:
        document["capture"] = {**document.get("capture", {}), "trace": "on"}
    job = parse_browser_job(document)
    changes: dict[str, Any] = {"artifacts_directory": artifacts}
    if executable is not None:
        changes["executable"] = executable
    if no_sandbox:
        changes["sandbox"] = False
    settings = _settings().model_copy(update=changes)
    if settings.sandbox and os.geteuid() == 0:
        expected = "it, because root has no sandbox; or to be run as another user"
        raise ConfigError.of("--no-sandbox", "nothing", expected)
    result = _run(job, settings, headed=headed)
    click.echo(json.dumps(result, indent=2))
    if result["status"] == "failed":
        sys.exit(1)


@click.command()
@click.argument("name", type=click.Choice(_SCHEMAS), default="browser")
def schema(name: str) -> None:
    """Print the JSON Schema of a payload, or of a browser task's result."""
    click.echo(json.dumps(_schema(name), indent=2))


def _schema(name: str) -> dict[str, Any]:
    from pydantic import TypeAdapter

    from swarm.analysis.model import AnalysisJob
    from swarm.browse.payload import BrowserJob
    from swarm.browse.result import JobResult

    types: dict[str, Any] = {"browser": BrowserJob, "analysis": AnalysisJob, "result": JobResult}
    document: dict[str, Any] = TypeAdapter(types[name]).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **document}


def _settings() -> BrowserSettings:
    """Those of config.yaml; on a machine that has none, the defaults."""
    if config_path().exists():
        return read_settings().browser
    return BrowserSettings()


def _run(job: Any, settings: BrowserSettings, *, headed: bool) -> dict[str, Any]:
    from swarm.browse.directory_store import DirectoryStore
    from swarm.browse.engine import Engine
    from swarm.browse.errors import JobError
    from swarm.browse.visit import Deployment

    try:
        settings.artifacts_directory.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError.of("--artifacts", str(exc.strerror), "a directory to write to") from exc
    store = DirectoryStore(settings.artifacts_directory, host="localhost")
    engine = Engine(Deployment(settings, store, read_browser_secrets()), headed=headed)
    engine.start()
    try:
        return asdict(engine.run(job))
    except JobError as exc:
        return dict(exc.result or {"status": "failed", "error": {"message": str(exc)}})
    finally:
        engine.stop()

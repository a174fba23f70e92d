"""The only reader of environment variables and credentials.

Each function reads once, at start, and reports every wrong variable in one `ConfigError`.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar, cast, get_args

from swarm.brokers import Broker, parse_broker
from swarm.browse.secrets import Secrets
from swarm.config import config_path, load_settings
from swarm.errors import ConfigError, Problem
from swarm.settings import (
    DEFAULT_CREDENTIALS_DIRECTORY,
    MAX_INSTANCE_NUMBER,
    BrowserSettings,
    PoolSettings,
    Settings,
)

CeleryPool = Literal["prefork", "solo", "threads"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Autoscale:
    """Bounds of Celery's own autoscaler inside one instance, in processes."""

    maximum: int
    minimum: int


@dataclass(frozen=True, slots=True)
class WorkerEnvironment:
    """What the process behind `celery-<pool>@N` is told by its unit."""

    settings: Settings
    broker: Broker
    pool_name: str
    pool: PoolSettings
    instance: int
    host: str
    metrics_address: str
    queues: tuple[str, ...]
    concurrency: int
    autoscale: Autoscale | None
    celery_pool: CeleryPool
    log_level: LogLevel
    max_tasks: int
    secrets: Secrets
    """What browser payloads may refer to by name."""
    artifacts_credential: str = field(default="", repr=False)

    @property
    def metrics_port(self) -> int:
        return self.pool.metrics_port_base + self.instance

    @property
    def processes(self) -> int:
        """Processes that run tasks once it has started: threads and solo have one."""
        if self.celery_pool != "prefork":
            return 1
        return self.autoscale.minimum if self.autoscale else self.concurrency

    @property
    def capacity(self) -> int:
        """Tasks this instance can run at a time."""
        return self.autoscale.maximum if self.autoscale else self.concurrency


def read_credential(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """A secret by its name: from systemd's `LoadCredential=`, else from /etc/swarm/credentials.

    None when there is no such file or it is not ours to read.
    """
    directory = Path(environ.get("CREDENTIALS_DIRECTORY") or DEFAULT_CREDENTIALS_DIRECTORY)
    try:
        return (directory / name).read_text(encoding="utf-8").strip()
    except OSError:
        return None


def read_broker(
    environ: Mapping[str, str] = os.environ, *, credential: str = "redis-url"
) -> Broker:
    """The primary broker: `REDIS_URL`, else the credential, which says as whom to enter.

    Raises:
        ConfigError: neither is there, or the URL is wrong.
    """
    url = environ.get("REDIS_URL") or read_credential(credential, environ)
    if not url:
        raise ConfigError(
            [
                Problem(
                    "REDIS_URL",
                    "nothing",
                    "redis://USER:PASSWORD@HOST:6379/0 or rediss://..., in the environment or in "
                    f"{DEFAULT_CREDENTIALS_DIRECTORY}/{credential} (readable by root)",
                )
            ]
        )
    return parse_broker("primary", url, variable="REDIS_URL")


def read_browser_secrets(environ: Mapping[str, str] = os.environ) -> Secrets:
    """What browser payloads may refer to by name, from the credential `browser-secrets`.

    Raises:
        ConfigError: the file is wrong; no value of it is repeated.
    """
    text = read_credential("browser-secrets", environ)
    return Secrets.parse(text or "", where="browser-secrets")


def read_artifacts_credential(
    settings: BrowserSettings, name: str, environ: Mapping[str, str] = os.environ
) -> str:
    """`USER:TOKEN` for the fleet's artifact store; empty where artifacts lie in a directory.

    Raises:
        ConfigError: there is such a store, but no credential for it.
    """
    if settings.artifacts_url is None:
        return ""
    text = read_credential(name, environ) or ""
    if not re.fullmatch(r"[^\s:]+:[^\s:]+", text):
        expected = f"USER:TOKEN, because browser.artifacts_url is {settings.artifacts_url}"
        value = "something else" if text else "nothing"
        raise ConfigError([Problem(f"the credential {name}", value, expected)])
    return text


def read_metrics_address(environ: Mapping[str, str] = os.environ) -> str:
    """Where a service answers Prometheus: `SWARM_METRICS_ADDRESS`, else loopback only."""
    return environ.get("SWARM_METRICS_ADDRESS") or "127.0.0.1"


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """config.yaml from where `SWARM_CONFIG` says."""
    return load_settings(config_path(environ))


def read_worker(environ: Mapping[str, str] = os.environ) -> WorkerEnvironment:
    """Everything `swarm worker` needs.

    Raises:
        ConfigError: with the problems of config.yaml, of the broker and of every variable.
    """
    reader = _Reader(environ)
    settings = reader.attempt(lambda: read_settings(environ))
    broker = reader.attempt(lambda: read_broker(environ))
    pool_name = environ.get("SWARM_POOL", "")
    pool = settings.pools.get(pool_name) if settings else None
    if settings and pool is None:
        reader.problem("SWARM_POOL", pool_name, f"one of {', '.join(settings.pools)}")
    artifacts_credential = None
    if settings and pool and pool.task_type == "browser":
        browser = settings.browser
        artifacts_credential = reader.attempt(
            lambda: read_artifacts_credential(browser, "artifacts-write", environ)
        )
    instance = reader.integer("SWARM_INSTANCE", minimum=1, maximum=MAX_INSTANCE_NUMBER)
    concurrency = reader.integer(
        "CELERY_CONCURRENCY", minimum=1, maximum=64, default=pool.concurrency if pool else 1
    )
    max_tasks = reader.integer("CELERY_MAX_TASKS", minimum=1, maximum=1_000_000, default=100)
    celery_pool = reader.choice("CELERY_POOL", get_args(CeleryPool), default="prefork")
    log_level = reader.choice("CELERY_LOGLEVEL", get_args(LogLevel), default="info")
    autoscale = reader.autoscale()
    if autoscale and celery_pool != "prefork":
        # Celery's autoscaler calls grow() on the pool; only prefork has it, a threads worker
        # dies of AttributeError (celery/concurrency/thread.py).
        reader.problem(
            "CELERY_AUTOSCALE",
            environ["CELERY_AUTOSCALE"],
            f"nothing, because CELERY_POOL is {celery_pool} and only prefork can autoscale",
        )
    if celery_pool == "solo" and concurrency > 1 and "CELERY_CONCURRENCY" in environ:
        reader.problem("CELERY_CONCURRENCY", str(concurrency), "1, because CELERY_POOL is solo")
    queues = reader.queues(default=pool.queues if pool else ())
    if settings and pool:
        # Queues of other pools are fine, those of another task type are not: their tasks would
        # fail here for good.
        fitting = settings.queues(task_type=pool.task_type)
        for queue in queues:
            if queue not in fitting:
                expected = f"queues of task_type {pool.task_type}: {', '.join(fitting)}"
                reader.problem("CELERY_QUEUES", queue, expected)
    secrets = reader.attempt(lambda: read_browser_secrets(environ)) or Secrets({})
    if reader.problems or settings is None or broker is None or pool is None:
        raise ConfigError(reader.problems)
    return WorkerEnvironment(
        settings=settings,
        broker=broker,
        pool_name=pool_name,
        pool=pool,
        instance=instance,
        host=environ.get("SWARM_HOST") or socket.gethostname(),
        metrics_address=read_metrics_address(environ),
        queues=queues,
        concurrency=1 if celery_pool == "solo" else concurrency,
        autoscale=autoscale,
        celery_pool=cast("CeleryPool", celery_pool),
        log_level=cast("LogLevel", log_level),
        max_tasks=max_tasks,
        secrets=secrets,
        artifacts_credential=artifacts_credential or "",
    )


class _Reader:
    """Reads variables one by one and collects what is wrong with them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[Problem] = []

    def problem(self, variable: str, value: str, expected: str) -> None:
        self.problems.append(Problem(variable, repr(value) if value else "nothing", expected))

    def attempt(self, read: Callable[[], _T]) -> _T | None:
        try:
            return read()
        except ConfigError as exc:
            self.problems.extend(exc.problems)
            return None

    def integer(
        self, variable: str, *, minimum: int, maximum: int, default: int | None = None
    ) -> int:
        text = self._environ.get(variable, "")
        if not text and default is not None:
            return default
        if re.fullmatch(r"[0-9]{1,9}", text) and minimum <= int(text) <= maximum:
            return int(text)
        self.problem(variable, text, f"a whole number from {minimum} to {maximum}")
        return minimum

    def choice(self, variable: str, allowed: tuple[str, ...], *, default: str) -> str:
        text = self._environ.get(variable, "") or default
        if text.lower() not in allowed:
            self.problem(variable, text, f"one of {', '.join(allowed)}")
            return default
        return text.lower()

    def queues(self, *, default: tuple[str, ...]) -> tuple[str, ...]:
        text = self._environ.get("CELERY_QUEUES", "")
        queues = tuple(queue.strip() for queue in text.split(",")) if text else default
        if "" in queues:
            self.problem("CELERY_QUEUES", text, "queue names separated by single commas")
        return tuple(queue for queue in queues if queue)

    def autoscale(self) -> Autoscale | None:
        text = self._environ.get("CELERY_AUTOSCALE", "")
        if not text:
            return None
        match = re.fullmatch(r"([0-9]{1,3}),([0-9]{1,3})", text.replace(" ", ""))
        if match and 1 <= int(match[2]) <= int(match[1]) <= 64:
            return Autoscale(maximum=int(match[1]), minimum=int(match[2]))
        self.problem(
            "CELERY_AUTOSCALE", text, 'two whole numbers "max,min" with 1 <= min <= max <= 64'
        )
        return None

"""The only reader of environment variables and credentials.

Each function reads once, at start, and reports every wrong variable in one `ConfigError`.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, cast, get_args

from swarm.brokers.address import VARIABLES, Broker, BrokerName, Brokers, check_files, parse_broker
from swarm.browse.secrets import Secrets
from swarm.config import config_path, load_settings
from swarm.env_file import env_file_here, named_env_file
from swarm.errors import ConfigError, Problem
from swarm.settings import (
    DEFAULT_CREDENTIALS_DIRECTORY,
    MAX_INSTANCE_NUMBER,
    BrowserSettings,
    PoolSettings,
    Settings,
)
from swarm.variables import Autoscale, VariableReader

CeleryPool = Literal["prefork", "solo", "threads"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

_BROKER_VARIABLES = ("REDIS_URL", "REDIS_FALLBACK_URL", "REDIS_FALLBACK_ENABLED")
_APART = "another Redis than REDIS_URL: together they would fail"


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
    environ: Mapping[str, str] = os.environ,
    *,
    name: BrokerName = "primary",
    credential: str = "redis-url",
) -> Broker:
    """One broker alone, as `read_brokers` finds it; the fallback even when it is not enabled.

    Raises:
        ConfigError: it is nowhere, or its URL is wrong.
    """
    value, where = _find_brokers(environ, credential)[VARIABLES[name]]
    return _checked(name, value, where)


def read_brokers(
    environ: Mapping[str, str] = os.environ, *, credential: str = "redis-url"
) -> Brokers:
    """Both brokers; the fallback only if `REDIS_FALLBACK_ENABLED` says so.

    Where it says nothing, two credentials do: only a deployment writes `redis-fallback-url` beside
    `redis-url`. A `REDIS_URL` that was set by hand leads to no deployed fallback unasked.

    Each variable comes from the environment, else from the file `SWARM_ENV_FILE`, else from the
    credential, which says as whom to enter (`redis-url-scaler`, `redis-fallback-url-scaler`).
    If all of these know no `REDIS_URL`, and this is no service, from `.env` in the working
    directory: last, so that no stray file turns away what was set up.

    Raises:
        ConfigError: with every problem of every variable.
    """
    found = _find_brokers(environ, credential)
    reader = VariableReader(environ)
    primary = reader.attempt(lambda: _checked("primary", *found["REDIS_URL"]))
    value, where = found["REDIS_FALLBACK_ENABLED"]
    enabled = reader.boolean(where, value) if value else _are_deployed(environ, found, credential)
    fallback = None
    if enabled:
        fallback = reader.attempt(lambda: _checked("fallback", *found["REDIS_FALLBACK_URL"]))
    if primary and fallback and primary.place == fallback.place:
        reader.problem(found["REDIS_FALLBACK_URL"][1], fallback.address, _APART)
    if reader.problems or primary is None:
        raise ConfigError(reader.problems)
    return Brokers(primary, fallback)


def read_pools_brokers(
    settings: Settings, environ: Mapping[str, str] = os.environ
) -> tuple[Broker, ...]:
    """The brokers that the pools of config.yaml serve, the primary first; the scaler needs each.

    Raises:
        ConfigError: with the problems of all of them.
    """
    reader = VariableReader(environ)
    found = [
        reader.attempt(partial(read_broker, environ, name=name)) for name in settings.served_brokers
    ]
    brokers = tuple(broker for broker in found if broker is not None)
    if len({broker.place for broker in brokers}) < len(brokers):
        reader.problem(brokers[-1].variable, brokers[-1].address, _APART)
    if reader.problems:
        raise ConfigError(reader.problems)
    return brokers


def _find_brokers(environ: Mapping[str, str], credential: str) -> dict[str, tuple[str, str]]:
    """Variable -> its value, empty if there is none, and where that stands."""
    found = {name: (environ.get(name, ""), name) for name in _BROKER_VARIABLES}

    def add(values: Mapping[str, str], source: str) -> None:
        for name, value in values.items():
            if value and not found[name][0]:
                found[name] = (value, f"{name}{source}")

    add(named_env_file(environ, found), f" in {environ.get('SWARM_ENV_FILE')}")
    for name, file in _credentials(credential).items():
        add({name: read_credential(file, environ) or ""}, "")
    if not found["REDIS_URL"][0] and "CREDENTIALS_DIRECTORY" not in environ:
        add(env_file_here(found), " in .env")
    return found


def _credentials(credential: str) -> dict[str, str]:
    """Variable -> the credential that has its value."""
    return {
        "REDIS_URL": credential,
        "REDIS_FALLBACK_URL": credential.replace("redis-url", "redis-fallback-url"),
    }


def _are_deployed(
    environ: Mapping[str, str], found: Mapping[str, tuple[str, str]], credential: str
) -> bool:
    """Whether both brokers are those of credentials."""
    return all(
        found[name][0] and found[name][0] == read_credential(file, environ)
        for name, file in _credentials(credential).items()
    )


def _checked(name: BrokerName, url: str, where: str) -> Broker:
    if not url:
        file, reason = "redis-url", ""
        if name == "fallback":
            file = "redis-fallback-url"
            reason = " (REDIS_FALLBACK_ENABLED is on, or a pool here has broker fallback)"
        expected = (
            "redis://USER:PASSWORD@HOST:6379/0 or rediss://..., in the environment, in .env or in "
            f"{DEFAULT_CREDENTIALS_DIRECTORY}/{file} (readable by root){reason}"
        )
        raise ConfigError([Problem(where, "nothing", expected)])
    broker = parse_broker(name, url, variable=where)
    check_files(broker, variable=where)
    return broker


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


def name_served_broker(
    settings: Settings, environ: Mapping[str, str] = os.environ
) -> BrokerName | None:
    """Which broker this service is for: a pool's, or the one that `SWARM_BROKER` names.

    None for everybody else: producers have all there are.

    Raises:
        ConfigError: there is no broker of this name.
    """
    pool = settings.pools.get(environ.get("SWARM_POOL", ""))
    name = pool.broker if pool else environ.get("SWARM_BROKER", "")
    if not name:
        return None
    if name not in VARIABLES:
        raise ConfigError.of("SWARM_BROKER", repr(name), f"one of {', '.join(VARIABLES)}")
    return name


def read_served_broker(
    settings: Settings, environ: Mapping[str, str] = os.environ
) -> Broker | None:
    """That broker, or None.

    Raises:
        ConfigError: it is nowhere, or its URL is wrong; or there is no broker of this name.
    """
    name = name_served_broker(settings, environ)
    return None if name is None else read_broker(environ, name=name)


def read_worker(environ: Mapping[str, str] = os.environ) -> WorkerEnvironment:
    """Everything `swarm worker` needs.

    Raises:
        ConfigError: with the problems of config.yaml, of the broker and of every variable.
    """
    reader = VariableReader(environ)
    settings = reader.attempt(lambda: read_settings(environ))
    pool_name = environ.get("SWARM_POOL", "")
    pool = settings.pools.get(pool_name) if settings else None
    served = pool.broker if pool else "primary"
    broker = reader.attempt(lambda: read_broker(environ, name=served))
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
        fitting = settings.queues(task_type=pool.task_type, broker=pool.broker)
        for queue in queues:
            if queue not in fitting:
                of_broker = "" if pool.broker == "primary" else f" on the {pool.broker}"
                expected = f"queues of task_type {pool.task_type}{of_broker}: {', '.join(fitting)}"
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

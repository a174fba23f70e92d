"""config.yaml as a daemon follows it: the hosts may change while it runs, all else at a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from swarm.config import config_path
from swarm.environment import read_settings
from swarm.errors import ConfigError, Problem
from swarm.settings import Settings

log = logging.getLogger(__name__)


def read_with_hosts(environ: Mapping[str, str]) -> Settings:
    """What config.yaml holds.

    Raises:
        ConfigError: it is wrong, or has no host.
    """
    settings = read_settings(environ)
    if not settings.hosts:
        where = f"{config_path(environ)}: hosts"
        raise ConfigError([Problem(where, "nothing", "at least one host to scale on")])
    return settings


class ConfigFile:
    """Tells when the file was replaced, once for each time."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        """`settings` are what it held at the start."""
        self._started_with = settings
        self._environ = environ
        self._path = config_path(environ)
        self._version = self._look()
        self._is_asked = False

    def ask(self) -> None:
        """Have it read again, changed or not."""
        self._is_asked = True

    async def news(self) -> Settings | None:
        """What it holds now; None when it is the same file, or is wrong, which is told."""
        version = self._look()
        if version == self._version and not self._is_asked:
            return None
        self._version, self._is_asked = version, False
        try:
            # A thousand hosts take YAML a second.
            settings = await asyncio.to_thread(read_with_hosts, self._environ)
        except ConfigError as exc:
            self.refuse(exc)
            return None
        others = [
            name
            for name in Settings.model_fields
            if name != "hosts" and getattr(settings, name) != getattr(self._started_with, name)
        ]
        if others:
            log.warning(
                "%s: %s changed, which takes effect when the scaler is restarted",
                self._path,
                ", ".join(others),
            )
        return settings

    def refuse(self, exc: ConfigError) -> None:
        """Tell that what it holds cannot be had."""
        problems = "; ".join(map(str, exc.problems))
        log.error("the hosts stay as they were: %s", problems)

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return (found.st_ino, found.st_mtime_ns, found.st_size)

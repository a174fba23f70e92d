"""Chooses the artifact store that config.yaml asks for."""

from __future__ import annotations

from datetime import timedelta

from swarm.browse.artifacts import ArtifactStore, Keeping
from swarm.browse.directory_store import DirectoryStore
from swarm.settings import BrowserSettings


def make_store(settings: BrowserSettings, *, host: str, credential: str) -> ArtifactStore:
    """The fleet's store if there is one, which needs `credential`; else this host's directory."""
    keeping = Keeping(
        max_bytes=settings.artifact_max_bytes,
        max_age=timedelta(seconds=settings.artifacts_max_age_s),
    )
    if settings.artifacts_url is None:
        return DirectoryStore(settings.artifacts_directory, host=host, keeping=keeping)
    # An HTTP client takes as long to import as a browser to start, which only this store needs.
    from swarm.browse.http_store import HttpStore  # noqa: PLC0415

    return HttpStore(settings.artifacts_url, credential=credential, keeping=keeping)

"""known_hosts is parsed once, and again when it was replaced."""

from __future__ import annotations

from pathlib import Path

import asyncssh
import pytest

from swarm.scaler.adapters.known_hosts import KnownHosts


def write(path: Path, host: str) -> None:
    """As a deployment does: another file in the place of the one before."""
    key = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    scratch = path.with_suffix(".tmp")
    scratch.write_text(f"{host} {key}", encoding="utf-8")
    scratch.replace(path)


def test_it_is_parsed_only_when_it_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    write(path, "worker1")
    known_hosts = KnownHosts(path)
    first = known_hosts.read()
    assert first.match("worker1", "", None)[0]
    assert known_hosts.read() is first
    write(path, "worker2")
    assert not known_hosts.read().match("worker1", "", None)[0]
    assert known_hosts.read().match("worker2", "", None)[0]


def test_a_file_that_is_gone_or_wrong_is_not_trusted_for_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    write(path, "worker1")
    known_hosts = KnownHosts(path)
    known_hosts.read()
    path.write_text("nonsense\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ValueError, match="nonsense"):
            known_hosts.read()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        known_hosts.read()

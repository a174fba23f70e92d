"""The egress proxy as the role `egress` configures it: a real squid, on a port of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml

from tests.loopback import free_port, wait_until
from tests.programs import SQUID

ROLE = Path(__file__).parents[1] / "roles" / "egress"


def render_egress(template: str, **variables: Any) -> str:
    """One of the role's templates, with its defaults where nothing else is said."""
    known: dict[str, Any] = {}
    for name in ("defaults", "vars"):
        known |= yaml.safe_load((ROLE / name / "main.yml").read_text(encoding="utf-8"))
    templates = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    text = (ROLE / "templates" / template).read_text(encoding="utf-8")
    return templates.from_string(text).render({**known, **variables})


@dataclass
class RoleEgress:
    """`allowed` as the role's `egress_allowed`."""

    directory: Path
    allowed: Sequence[dict[str, Any]] = ()
    nameservers: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        config = self.directory / "squid.conf"
        config.write_text(
            render_egress(
                "squid.conf.j2",
                egress_port=self.port,
                egress_allowed=list(self.allowed),
                egress_nameservers=list(self.nameservers),
            )
            + self._places()
        )
        libraries = ":".join(str(path) for path in (_root() / "usr" / "lib").glob("*-linux-gnu"))
        with (self.directory / "squid.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(SQUID), "-n", f"test{self.port}", "-N", "-d", "1", "-f", str(config)],
                env={**os.environ, "LD_LIBRARY_PATH": libraries},
                stdout=log,
                stderr=log,
            )
        wait_until(self._listens, what=f"squid (see {self.directory}/squid.log)")

    def stop(self) -> None:
        if self.process is not None:
            # At once, but not without removing what it has in /dev/shm.
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None

    def _listens(self) -> bool:
        with socket.socket() as trying:
            return trying.connect_ex(("127.0.0.1", self.port)) == 0

    def _places(self) -> str:
        """Where an unpacked squid finds what an installed one has at /usr/share and /etc."""
        share = _root() / "usr" / "share" / "squid"
        return (
            f"error_directory {share}/errors/en\n"
            f"icon_directory {share}/icons\n"
            f"mime_table {share}/mime.conf\n"
            f"unlinkd_program {_root()}/usr/lib/squid/unlinkd\n"
        )


def _root() -> Path:
    return SQUID.parents[2]

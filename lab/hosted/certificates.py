"""An authority of our own, a certificate for the service and one for its clients; by openssl."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.commands import run

DAYS = 30
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files in one directory."""

    directory: Path

    @property
    def authority(self) -> Path:
        """What clients trust: `ssl_ca_certs` of their URL."""
        return self.directory / "authority.pem"

    @property
    def client(self) -> Path:
        """`ssl_certfile` of a client's URL."""
        return self.directory / "client.pem"

    @property
    def client_key(self) -> Path:
        """`ssl_keyfile` of a client's URL."""
        return self.directory / "client.key"

    def server_context(self, *, ask_clients: bool) -> ssl.SSLContext:
        """The service's end of TLS; with `ask_clients` only for those with a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.directory / "server.pem", self.directory / "server.key")
        if ask_clients:
            context.load_verify_locations(self.authority)
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_certificates(
    directory: Path, names: Sequence[str] = ("DNS:localhost", "IP:127.0.0.1")
) -> Certificates:
    """Make all of them anew for a service with these names.

    Raises:
        LabError: openssl is missing or failed.
    """
    directory.mkdir(parents=True, exist_ok=True)
    certificates = Certificates(directory)
    authority_key = directory / "authority.key"
    _request(
        certificates.authority,
        authority_key,
        "stand-in authority",
        ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"],
    )
    signed = ("-CA", str(certificates.authority), "-CAkey", str(authority_key))
    server = ["basicConstraints=CA:FALSE", f"subjectAltName={','.join(names)}"]
    _request(directory / "server.pem", directory / "server.key", "stand-in", server, *signed)
    client = ["basicConstraints=CA:FALSE", "extendedKeyUsage=clientAuth"]
    _request(certificates.client, certificates.client_key, "client", client, *signed)
    return certificates


def _request(
    certificate: Path, key: Path, name: str, extensions: Sequence[str], *signed: str
) -> None:
    words = ["openssl", "req", "-x509", *_KEY, *signed, "-days", str(DAYS), "-subj", f"/CN={name}"]
    for extension in extensions:
        words += ["-addext", extension]
    run([*words, "-keyout", str(key), "-out", str(certificate)])

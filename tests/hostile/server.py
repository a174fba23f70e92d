"""Serves the corpus, and answers as no honest server does. Standard library only.

A process of its own, on this host or another: `python3 -m tests.hostile.server --port 8090`.
`/asked` tells what it was asked for, datagrams to the same port included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.hostile.pages import PAGES

GIGABYTE = 1_000_000_000
_CHUNK = b"x" * 65536
#: Seconds between two bytes of a server that drips.
_DRIP_S = 0.3


#: What all servers of this process were asked for, in its order.
_ASKED: list[str] = []


class HostileServer(ThreadingHTTPServer):
    """One port; with a certificate it speaks TLS."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], certificate: str = "") -> None:
        super().__init__(address, _Handler)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def handle_error(self, request: object, client_address: object) -> None:
        """Browsers leave in the middle of everything here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HostileServer
    timeout = 20

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Keep quiet."""

    def do_GET(self) -> None:
        """One method a path; what is under /page/ are the pages."""
        url = urlsplit(self.path)
        kind, _, name = url.path.strip("/").partition("/")
        if kind != "asked":
            _ASKED.append(self.path)
        answer: Callable[[], None] | None = getattr(self, f"_{kind.replace('-', '_')}", None)
        with contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError):
            if kind == "page" and name in PAGES:
                self._page(PAGES[name])
            elif answer is not None:
                answer()
            else:
                self._send(404, b"<title>none</title>")

    def _page(self, text: str) -> None:
        host, _, port = self.headers.get("Host", "").partition(":")
        self._send(200, text.replace("{host}", host).replace("{port}", port).encode())

    # -- answers by path

    def _asked(self) -> None:
        self._send(200, json.dumps(_ASKED).encode(), "application/json")

    def _empty(self) -> None:
        self._send(200, b"<title>empty</title>empty")

    def _redirect(self) -> None:
        """To what the query says."""
        to = parse_qs(urlsplit(self.path).query)["to"][0]
        self._send(302, b"", Location=to)

    def _endless_redirect(self) -> None:
        self._send(302, b"", Location=f"/endless-redirect?{time.monotonic_ns()}")

    def _gigabyte(self) -> None:
        self._begin(200, **{"Content-Length": str(GIGABYTE)})
        self._pour(GIGABYTE)

    def _endless_body(self) -> None:
        self._begin(200, Connection="close")
        self._pour(None)

    def _endless_file(self) -> None:
        self._begin(200, "application/octet-stream", Connection="close")
        self._pour(None)

    def _file_odd_name(self) -> None:
        disposition = 'attachment; filename="../../../../etc/x\x7f.sh"'
        self._send(200, b"odd", "application/x-sh", **{"Content-Disposition": disposition})

    def _bomb(self) -> None:
        """A few megabytes of gzip that are a gigabyte."""
        self._begin(200, **{"Content-Encoding": "gzip"}, Connection="close")
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        for _ in range(GIGABYTE // len(_CHUNK)):
            self.wfile.write(packer.compress(_CHUNK))
        self.wfile.write(packer.flush())

    def _drip_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self._drip()

    def _drip_body(self) -> None:
        self._begin(200, Connection="close")
        self._drip()

    def _never(self) -> None:
        time.sleep(60)
        self.close_connection = True

    def _cut(self) -> None:
        """Ends long before what it has announced."""
        self._begin(200, **{"Content-Length": "100000"})
        self.wfile.write(b"<title>cut</title>")
        self.close_connection = True

    def _garbage(self) -> None:
        self.wfile.write(bytes(range(256)) * 40)
        self.close_connection = True

    def _headers(self) -> None:
        """Half a megabyte of them."""
        self._begin(200, **{f"X-{n}": "x" * 1000 for n in range(500)})
        self.close_connection = True

    def _cookies(self) -> None:
        self.send_response(200)
        for number in range(150):
            self.send_header("Set-Cookie", f"c{number}={'x' * 1000}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _odd_status(self) -> None:
        self.wfile.write(b"HTTP/1.1 999 Odd\r\nContent-Length: 5\r\n\r\nthere")

    def _nothing(self) -> None:
        self.send_response(204)
        self.end_headers()

    def _auth(self) -> None:
        self._send(401, b"<title>who</title>", **{"WWW-Authenticate": 'Basic realm="who"'})

    def _proxy_auth(self) -> None:
        self._send(407, b"<title>who</title>", **{"Proxy-Authenticate": 'Basic realm="who"'})

    def _refresh_header(self) -> None:
        self._send(200, b"<title>again</title>", Refresh=f"0; url={self.path}")

    # -- how

    def _begin(self, status: int, kind: str = "text/html; charset=utf-8", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = headers.get("Connection") == "close"

    def _send(
        self, status: int, body: bytes, kind: str = "text/html; charset=utf-8", **headers: str
    ) -> None:
        self._begin(status, kind, **{"Content-Length": str(len(body))}, **headers)
        self.wfile.write(body)

    def _pour(self, size: int | None) -> None:
        """Markup without end, or of a size; never more of it in memory than a chunk."""
        sent = 0
        while size is None or sent < size:
            sent += self.wfile.write(_CHUNK)

    def _drip(self) -> None:
        while True:
            time.sleep(_DRIP_S)
            self.wfile.write(b"x")


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="Serve pages that do harm.")
    parser.add_argument("--bind", default="127.0.0.1")
    parser.add_argument("--port", default=8090, type=int)
    parser.add_argument(
        "--tls", action="append", default=[], metavar="PORT=PEM", help="another port, with TLS"
    )
    options = parser.parse_args()
    for word in options.tls:
        port, _, certificate = word.partition("=")
        secure = HostileServer((options.bind, int(port)), certificate)
        threading.Thread(target=secure.serve_forever, daemon=True).start()
    threading.Thread(target=_note_datagrams, args=(options.bind, options.port), daemon=True).start()
    HostileServer((options.bind, options.port)).serve_forever()


def _note_datagrams(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((host, port))
        while True:
            listener.recv(2048)
            _ASKED.append("datagram")


if __name__ == "__main__":
    main()

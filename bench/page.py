"""The page of the browser benchmarks, what is done on it, and with which browser."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from typing import Any

CHROMIUM = "/usr/bin/chromium-headless-shell"
ELEMENTS = 100
_ROWS = "".join(f'<li class="row">Row {number}, with some words</li>' for number in range(ELEMENTS))
_BODY = f"<!doctype html><title>Rows</title><h1>Rows</h1><ul>{_ROWS}</ul>".encode()


def payload(url: str) -> dict[str, Any]:
    """Open, count, picture: as a job of ours."""
    return {
        "url": url,
        # What the others' pages have, by Playwright's default.
        "context": {"viewport": {"width": 1280, "height": 720}},
        "steps": [{"kind": "assert", "selector": "li", "count": ELEMENTS}],
        "actions": [{"kind": "screenshot"}],
    }


@contextmanager
def page_server() -> Iterator[str]:
    """Serves the page on loopback from a thread; yields its address."""
    with served(ThreadingHTTPServer(("127.0.0.1", 0), _Handler)) as origin:
        yield f"{origin}/rows"


@contextmanager
def served(server: HTTPServer) -> Iterator[str]:
    """A server at work in a thread; yields the origin of its pages."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Two writes and a delayed acknowledgement would be 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        found = self.path == "/rows"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(_BODY) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(_BODY)

    def log_message(self, *_arguments: object) -> None:
        """Nothing: requests are not news."""

"""The switches over HTTP, on loopback only: for tests in other processes, and for people.

GET / tells the state, POST / takes faults as JSON, and `{"used": N}`, POST /restart and POST /heal
take nothing. Each answers with the state.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from lab.hosted.service import HostedRedis, check_faults

TIMEOUT_S = 10.0


class Control:
    """A context manager around its thread; `port` 0 takes a free one."""

    def __init__(self, service: HostedRedis, *, port: int = 0) -> None:
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.service = service
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def ask(url: str, path: str = "/", change: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The state, after a change if there is one.

    Raises:
        ValueError: the change is wrong.
        OSError: there is no stand-in at this URL.
    """
    body = None if change is None else json.dumps(change).encode()
    request = Request(url.rstrip("/") + path, data=body)  # noqa: S310 - http, as we were told
    try:
        with urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
            state: dict[str, Any] = json.load(answer)
    except HTTPError as exc:
        with exc:
            raise ValueError(exc.read().decode(errors="replace").strip()) from exc
    return state


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    service: HostedRedis


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """Tell the state."""
        self._answer()

    def do_POST(self) -> None:
        """Change it."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        service = self.server.service
        if self.path == "/restart":
            service.restart()
        elif self.path == "/heal":
            service.heal()
        else:
            try:
                change = json.loads(body)
                used = change.pop("used", None)
                service.set(**check_faults(change))
                if used is not None:
                    service.use(int(used))
            except (ValueError, TypeError, AttributeError) as exc:
                self._send(HTTPStatus.BAD_REQUEST, f"{exc}\n".encode())
                return
        self._answer()

    def _answer(self) -> None:
        self._send(HTTPStatus.OK, json.dumps(self.server.service.state()).encode() + b"\n")

    def _send(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's
        """Say nothing."""

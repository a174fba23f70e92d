"""A stand-in for Flower: the queue lengths that it is given, behind the password it is given."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

AUTH = "swarm:flower-password"


class Flower:
    """Says how many tasks wait in one queue."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self.waiting = 0
        self.asked = 0
        """How often it was."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *words: _Handler(self, *words))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def document(self) -> dict[str, object]:
        """What `/api/queues/length` answers."""
        return {"active_queues": [{"name": self._queue, "messages": self.waiting}]}

    def serve(self) -> None:
        self._server.serve_forever()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def stand_in(queue: str) -> Iterator[Flower]:
    """One that answers until the end."""
    flower = Flower(queue)
    thread = threading.Thread(target=flower.serve, name="flower")
    thread.start()
    try:
        yield flower
    finally:
        flower.close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, flower: Flower, *words: object) -> None:
        self._flower = flower
        super().__init__(*words)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._flower.asked += 1
        expected = f"Basic {b64encode(AUTH.encode()).decode()}"
        if self.headers.get("Authorization") != expected:
            self._answer(HTTPStatus.UNAUTHORIZED, b"")
        elif self.path == "/api/queues/length":
            self._answer(HTTPStatus.OK, json.dumps(self._flower.document()).encode())
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"")

    def log_message(self, *_: object) -> None: ...

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

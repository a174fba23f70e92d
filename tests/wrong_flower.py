"""A server in Flower's place, and what it may answer that is no length of a queue."""

from __future__ import annotations

import gzip
import json
import socketserver
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"


@dataclass(frozen=True)
class Answer:
    """Bytes, and what becomes of the connection after them."""

    sent: bytes
    told: str = ""
    """What the scaler says of it."""
    then: bytes | None = b""
    """Repeated without end; None to keep silent, nothing to hang up."""


def document(value: object, *headers: str) -> bytes:
    """An answer as Flower gives it, with this in it."""
    body = json.dumps(value).encode()
    lines = [*headers, f"Content-Length: {len(body)}"]
    return _HEAD + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + body


def lengths(*rows: object, headers: tuple[str, ...] = ()) -> bytes:
    return document({"active_queues": list(rows)}, *headers)


def row(messages: object, name: str = "browser") -> dict[str, Any]:
    return {"name": name, "messages": messages}


def _status(code: int, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"HTTP/1.1 {code} No\r\nConnection: close\r\n{lines}Content-Length: 0\r\n\r\n".encode()


def _packed(size: int) -> bytes:
    body = gzip.compress(b" " * size)
    lengths = f"Content-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    return _HEAD + lengths.encode() + body


_HALF = _HEAD + b'Content-Length: 100\r\n\r\n{"active_queues": [{"name": "browser", '
_HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<h1>Log in</h1>"

#: By what is wrong.
FAULTS = {
    "401": Answer(_status(401), "refused the password"),
    "500": Answer(_status(500), "answered 500"),
    "html": Answer(_HTML, "not JSON"),
    "redirect to a login page": Answer(_status(302, "Location: /login"), "answered 302"),
    "redirect elsewhere": Answer(_status(307, "Location: http://127.0.0.1:1/"), "answered 307"),
    "redirect in a circle": Answer(_status(301, "Location: /api/queues/length"), "answered 301"),
    "nothing": Answer(b"", "is away"),
    "silence": Answer(b"", "did not answer in", then=None),
    "half, then silence": Answer(_HALF, "did not answer in", then=None),
    "half, then the end": Answer(_HALF, "is away"),
    "garbage": Answer(b"\x00\xff\xfe\r\n\r\n", "is away"),
    "another protocol": Answer(b"SSH-2.0-OpenSSH_9.2\r\n", "is away"),
    "a header without end": Answer(b"HTTP/1.1 200 OK\r\nX: ", "is away", then=b"x" * 65_536),
    "a body without end": Answer(
        _HEAD + b"\r\n", "has more than 1048576 bytes", then=b" " * 65_536
    ),
    "half a gigabyte, packed": Answer(_packed(2**29), "not JSON"),
    "an absent queue": Answer(lengths(row(5, "other")), "does not list queue browser"),
    "no queues": Answer(document({}), "has no active_queues"),
    "two lengths": Answer(lengths(row(0), row(50)), "gives 2 lengths of queue browser"),
    "a wrong length beside a right one": Answer(lengths(row(0), row(-1)), "gives -1 as"),
    "negative": Answer(lengths(row(-1)), "gives -1 as the length"),
    "fraction": Answer(lengths(row(2.0)), "gives 2.0 as the length"),
    "text": Answer(lengths(row("7")), "gives '7' as the length"),
    "truth": Answer(lengths({"name": "browser", "messages": True}), "gives True as the length"),
    "null": Answer(lengths(row(None)), "gives None as the length"),
    "nan": Answer(lengths(row(float("nan"))), "gives nan as the length"),
    "infinite": Answer(lengths(row(float("inf"))), "gives inf as the length"),
    "more than a list can hold": Answer(lengths(row(2**40)), "as the length"),
    "figures of a cache": Answer(
        lengths(row(50), headers=("Age: 90",)), "answer is 90 s old: a cache is on the way"
    ),
    "escapes": Answer(lengths(row("\x1b[2J\n" * 1000)), "as the length of queue browser"),
}


class WrongFlower:
    """Gives everybody the same `answer`. A context manager."""

    auth = "swarm:flower-pw"

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        """The first line and the headers of each request."""
        self._over = threading.Event()
        flower = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                # Who asks may hang up at any moment.
                with suppress(OSError):
                    flower._give(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _give(self, connection: Any) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            if not (part := connection.recv(65_536)):
                return
            asked += part
        self.asked.append(asked)
        answer = self.answer
        connection.sendall(answer.sent)
        if answer.then is None:
            self._over.wait()
        while answer.then and not self._over.is_set():
            connection.sendall(answer.then)

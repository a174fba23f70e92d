"""A system bus on which systemd shows the units of a `StubSystemctl`, fails and hangs with it.

Its half of D-Bus is written for itself, so that it shares no mistake with the one under test.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Self

from tests.stub_systemctl import StubSystemctl

_TICK_S = 0.02
_TYPES = {
    "Result": "s",
    "MainPID": "u",
    "ExecMainStatus": "i",
    "StateChangeTimestampMonotonic": "t",
}


class _Asked(NamedTuple):
    """A method call."""

    serial: int
    member: str
    path: str
    body: bytes


class StubBus:
    """Serves at `systemctl.bus` as long as it is entered."""

    def __init__(self, systemctl: StubSystemctl) -> None:
        self._state = systemctl.state
        self._clients: list[_Client] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(systemctl.bus))
        self._listener.listen()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="stub bus")
        self.calls: list[str] = []
        """Names of the methods that were called."""
        self.signals = True
        """Whether systemd tells of changes."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for client in self._clients:
            client.socket.close()
        self._listener.close()

    def tell(self, path: str, body: bytes) -> None:
        """Send whoever wants to know a signal about the object."""
        for client in filter(lambda client: client.subscribed, self._clients):
            client.send(4, (1, "o", path), (3, "s", "PropertiesChanged"), body=body)

    def _serve(self) -> None:
        shown = self._show()
        while not self._stop.is_set():
            sockets = [self._listener, *(client.socket for client in self._clients)]
            if self._listener in select.select(sockets, [], [], _TICK_S)[0]:
                self._clients.append(_Client(self._listener.accept()[0]))
            for client in list(self._clients):
                if not client.read(self._answer):
                    client.socket.close()
                    self._clients.remove(client)
            before, shown = shown, self._show()
            for name in before.keys() | shown.keys():
                if before.get(name) != shown.get(name) and self.signals:
                    self.tell(_object(name), shown.get(name, b"gone"))

    def _show(self) -> dict[str, bytes]:
        """Every unit, and what keeps it from being told of."""
        files = [*(self._state / "units").iterdir(), self._state / "fail", self._state / "hang"]
        shown = {}
        for file in files:
            with suppress(FileNotFoundError):
                shown[file.name] = file.read_bytes()
        return shown

    def _answer(self, client: _Client, asked: _Asked) -> None:
        self.calls.append(asked.member)
        failing = self._state / "fail"
        if asked.member in {"Hello", "AddMatch", "Subscribe"}:
            client.subscribed |= asked.member == "Subscribe"
            client.send(2, (5, "u", asked.serial))
        elif (self._state / "hang").exists():
            return
        elif failing.exists():
            self._refuse(client, asked, failing.read_text("utf-8").strip())
        elif asked.member == "ListUnitsByPatterns":
            self._list(client, asked)
        else:
            self._get(client, asked)

    def _refuse(self, client: _Client, asked: _Asked, reason: str) -> None:
        fields = (5, "u", asked.serial), (4, "s", "org.freedesktop.DBus.Error.Failed")
        client.send(3, *fields, body=_text(reason), signature="s")

    def _list(self, client: _Client, asked: _Asked) -> None:
        rows = b""
        for name, properties in self._units().items():
            rows += bytes(-len(rows) % 8)
            texts = [name, name, "loaded", properties["ActiveState"], properties["SubState"], ""]
            for text in (*texts, _object(name)):
                rows = _text(text, rows)
            job = properties.get("Job", "")
            rows = _text("/", _text(job, _number(7 if job else 0, rows)))
        body = _number(len(rows)) + bytes(4) + rows
        client.send(2, (5, "u", asked.serial), body=body, signature="a(ssssssouso)")

    def _get(self, client: _Client, asked: _Asked) -> None:
        units = {_object(name): properties for name, properties in self._units().items()}
        name = _last_text(asked.body)
        if asked.path not in units:
            self._refuse(client, asked, "no such unit")
            return
        kind, value = _TYPES[name], units[asked.path][name]
        body = b"\1" + kind.encode() + b"\0"
        if kind == "s":
            body = _text(value, body)
        else:
            size = 8 if kind == "t" else 4
            body += bytes(-len(body) % size) + int(value).to_bytes(size, "little")
        client.send(2, (5, "u", asked.serial), body=body, signature="v")

    def _units(self) -> dict[str, dict[str, str]]:
        units = {}
        for name, content in self._show().items():
            properties = dict(line.split("=", 1) for line in content.decode().splitlines())
            if "Id" in properties:
                units[name] = properties
        return units


class _Client:
    """One connection, as the bus sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.socket.settimeout(0)
        self._received = b""
        self._authenticated = False
        self._serial = 0
        self.subscribed = False

    def read(self, answer: Callable[[_Client, _Asked], None]) -> bool:
        """Have answered what came; False when the client is gone."""
        with suppress(BlockingIOError):
            while True:
                try:
                    received = self.socket.recv(65_536)
                except ConnectionResetError:
                    return False
                if not received:
                    return False
                self._received += received
        if not self._authenticated:
            user = str(os.getuid()).encode().hex()
            if self._received != f"\0AUTH EXTERNAL {user}\r\n".encode():
                return True
            self.socket.sendall(b"OK 1234deadbeef\r\n")
            self._authenticated, self._received = True, b""
        self._received = self._received.removeprefix(b"BEGIN\r\n")
        while len(self._received) >= 16:
            body, serial, fields = struct.unpack_from("<III", self._received, 4)
            end = 16 + fields + -fields % 8 + body
            if len(self._received) < end:
                break
            message, self._received = self._received[:end], self._received[end:]
            named = _fields(message[16 : 16 + fields])
            answer(self, _Asked(serial, named[3], named[1], message[end - body :]))
        return True

    def send(
        self, kind: int, *fields: tuple[int, str, str | int], body: bytes = b"", signature: str = ""
    ) -> None:
        self._serial += 1
        encoded = b""
        for code, type_, value in fields:
            encoded += bytes(-len(encoded) % 8) + bytes([code, 1]) + type_.encode() + b"\0"
            encoded = _text(value, encoded) if isinstance(value, str) else _number(value, encoded)
        if signature:
            encoded += bytes(-len(encoded) % 8) + b"\x08\1g\0"
            encoded += bytes([len(signature)]) + signature.encode() + b"\0"
        head = struct.pack("<cBBBIII", b"l", kind, 1, 1, len(body), self._serial, len(encoded))
        with suppress(OSError):
            self.socket.sendall(head + encoded + bytes(-len(encoded) % 8) + body)


def _fields(message: bytes) -> dict[int, str]:
    """A header's by their code, all of which are texts in a call."""
    fields, at = {}, 0
    while at < len(message):
        code, is_signature = message[at], message[at + 2 : at + 3] == b"g"
        length = message[at + 4] if is_signature else struct.unpack_from("<I", message, at + 4)[0]
        start = at + (5 if is_signature else 8)
        fields[code] = message[start : start + length].decode()
        at = start + length + 1
        at += -at % 8
    return fields


def _last_text(body: bytes) -> str:
    """Of two texts."""
    (length,) = struct.unpack_from("<I", body)
    at = 4 + length + 1
    at += -at % 4
    return body[at + 4 : -1].decode()


def _object(unit: str) -> str:
    """systemd's name for what is to do with the unit; what fails concerns all of them."""
    named = "".join(c if c.isalnum() else f"_{ord(c):02x}" for c in unit)
    prefix = "" if unit.startswith("celery-") else "celery_2d"
    return f"/org/freedesktop/systemd1/unit/{prefix}{named}"


def _text(text: str, before: bytes = b"") -> bytes:
    encoded = text.encode()
    return _number(len(encoded), before) + encoded + b"\0"


def _number(number: int, before: bytes = b"") -> bytes:
    return before + bytes(-len(before) % 4) + struct.pack("<I", number)

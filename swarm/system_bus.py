"""As much of D-Bus as it takes to call methods on the system bus and to hear signals.

Standard library only, and no child process: `swarm-unitctl watch` runs on every host all the
time. Messages and types are those of the D-Bus specification (dbus.freedesktop.org/doc/
dbus-specification.html), in its version 1 of the wire format.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

_DEFAULT_ADDRESS = "unix:path=/run/dbus/system_bus_socket"
#: Seconds for the bus, or whoever is called over it, to answer.
_TIMEOUT_S = 10.0
#: The specification's own limit; nothing that is asked for here comes near it.
_LARGEST_MESSAGE = 2**27

_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _REPLY_SERIAL, _DESTINATION, _SIGNATURE = 1, 2, 3, 5, 6, 8
_FIXED = {"y": "B", "n": "h", "q": "H", "b": "I", "i": "i", "u": "I", "x": "q", "t": "Q", "d": "d"}
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")


class BusError(Exception):
    """The bus is away, or what came over it is an error or is not understood."""


class Call(NamedTuple):
    """A method to call; its arguments are texts and lists of texts, as `signature` says."""

    destination: str
    path: str
    interface: str
    member: str
    signature: str = ""
    arguments: Sequence[str | Sequence[str]] = ()


class Signal(NamedTuple):
    """A signal that a match rule let through; `body` is as it came."""

    path: str
    member: str
    body: bytes


class SystemBus:
    """A connection, closed when it is left.

    All that it does takes at most `_TIMEOUT_S`, or raises `BusError`.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._serial = 0
        self._received = bytearray()
        self._signals: list[Signal] = []
        name = _socket_name(environ.get("DBUS_SYSTEM_BUS_ADDRESS") or _DEFAULT_ADDRESS)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_TIMEOUT_S)
        try:
            self._socket.connect(name)
            self._authenticate()
            self.call(Call(*_BUS, "Hello"))
        except OSError as exc:
            self._socket.close()
            raise BusError(f"the system bus: {exc.strerror or exc}") from exc
        except BusError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Readable when signals may have come."""
        return self._socket.fileno()

    def match(self, rule: str) -> None:
        """Have the signals that fit the rule sent here."""
        self.call(Call(*_BUS, "AddMatch", "s", [rule]))

    def call(self, call: Call) -> tuple[Any, ...]:
        """What the method returned."""
        [answer] = self.call_all([call])
        if isinstance(answer, BusError):
            raise answer
        return answer

    def call_all(self, calls: Sequence[Call]) -> list[tuple[Any, ...] | BusError]:
        """What each of the methods returned, all of them asked at once."""
        first = self._serial + 1
        self._send(b"".join(self._encode(call) for call in calls))
        answers: dict[int, tuple[Any, ...] | BusError] = {}
        while len(answers) < len(calls):
            kind, fields, body = self._receive()
            serial = fields.get(_REPLY_SERIAL, 0)
            if kind == _SIGNAL:
                self._keep(fields, body)
            elif kind in {_RETURN, _ERROR} and first <= serial <= self._serial:
                answers[serial] = _answer(kind, fields, body)
        return [answers[serial] for serial in range(first, self._serial + 1)]

    def signals(self) -> list[Signal]:
        """Those that came since the last time, without waiting for one."""
        while self._is_waiting():
            kind, fields, body = self._receive()
            if kind == _SIGNAL:
                self._keep(fields, body)
        signals, self._signals = self._signals, []
        return signals

    def _is_waiting(self) -> bool:
        return bool(self._received) or bool(select.select([self._socket], [], [], 0)[0])

    def _keep(self, fields: Mapping[int, Any], body: bytes) -> None:
        self._signals.append(Signal(fields.get(_PATH, ""), fields.get(_MEMBER, ""), body))

    def _authenticate(self) -> None:
        user = str(os.getuid()).encode().hex()
        self._socket.sendall(f"\0AUTH EXTERNAL {user}\r\n".encode())
        line = bytearray()
        while not line.endswith(b"\r\n") and len(line) < 1024:
            if not (received := self._socket.recv(1)):
                break
            line += received
        if not line.startswith(b"OK "):
            raise BusError(f"the system bus refused this user: {bytes(line[:80])!r}")
        self._socket.sendall(b"BEGIN\r\n")

    def _encode(self, call: Call) -> bytes:
        self._serial += 1
        body = bytearray()
        for argument in call.arguments:
            if isinstance(argument, str):
                _put_text(body, argument)
            else:
                texts = bytearray()
                for text in argument:
                    _put_text(texts, text)
                _pad(body, 4)
                body += struct.pack("<I", len(texts)) + texts
        header = bytearray(struct.pack("<cBBBII", b"l", _CALL, 0, 1, len(body), self._serial))
        fields = bytearray()
        for code, kind, value in (
            (_PATH, "o", call.path),
            (_INTERFACE, "s", call.interface),
            (_MEMBER, "s", call.member),
            (_DESTINATION, "s", call.destination),
            (_SIGNATURE, "g", call.signature),
        ):
            _pad(fields, 8)
            fields += struct.pack("<BB", code, 1) + kind.encode() + b"\0"
            if kind == "g":
                fields += bytes([len(value)]) + value.encode() + b"\0"
            else:
                _put_text(fields, value)
        header += struct.pack("<I", len(fields)) + fields
        _pad(header, 8)
        return bytes(header + body)

    def _send(self, message: bytes) -> None:
        try:
            self._socket.sendall(message)
        except OSError as exc:
            raise BusError(f"the system bus: {exc.strerror or exc}") from exc

    def _receive(self) -> tuple[int, dict[int, Any], bytes]:
        head = self._read(16)
        if head[:1] != b"l" or head[3] != 1:
            raise BusError("the system bus speaks something else")
        body_length, _, fields_length = struct.unpack_from("<III", head, 4)
        padding = -fields_length % 8
        if fields_length + padding + body_length > _LARGEST_MESSAGE:
            raise BusError("the system bus sent too long a message")
        rest = self._read(fields_length + padding + body_length)
        # Offsets in a header count from its beginning, of which 16 bytes are a multiple of 8.
        fields = _Reader(rest[:fields_length]).fields()
        return head[1], fields, rest[fields_length + padding :]

    def _read(self, length: int) -> bytes:
        while len(self._received) < length:
            try:
                received = self._socket.recv(65_536)
            except TimeoutError as exc:
                raise BusError(f"systemd did not answer in {_TIMEOUT_S:g} s") from exc
            except OSError as exc:
                raise BusError(f"the system bus: {exc.strerror or exc}") from exc
            if not received:
                raise BusError("the system bus closed the connection")
            self._received += received
        taken = bytes(self._received[:length])
        del self._received[:length]
        return taken


def _socket_name(address: str) -> str:
    """`unix:path=/run/dbus/system_bus_socket` -> the path; the first that is understood counts."""
    for each in address.split(";"):
        transport, _, options = each.partition(":")
        named = dict(option.split("=", 1) for option in options.split(",") if "=" in option)
        if transport == "unix" and "path" in named:
            return named["path"]
        if transport == "unix" and "abstract" in named:
            return "\0" + named["abstract"]
    raise BusError(f"DBUS_SYSTEM_BUS_ADDRESS is {address[:80]!r}, expected unix:path=...")


def _answer(kind: int, fields: Mapping[int, Any], body: bytes) -> tuple[Any, ...] | BusError:
    values = _Reader(body).values(fields.get(_SIGNATURE, ""))
    if kind == _RETURN:
        return values
    return BusError(values[0] if values and isinstance(values[0], str) else "no reason given")


def _pad(message: bytearray, boundary: int) -> None:
    message += bytes(-len(message) % boundary)


def _put_text(message: bytearray, text: str) -> None:
    _pad(message, 4)
    encoded = text.encode()
    message += struct.pack("<I", len(encoded)) + encoded + b"\0"


class _Reader:
    """Values out of a message, in the order in which they were put."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._at = 0

    def values(self, signature: str) -> tuple[Any, ...]:
        """One of each type of the signature.

        Raises:
            BusError: they are not there, or of types that nothing here asks for.
        """
        values = []
        try:
            while signature:
                kind, signature = _split(signature)
                values.append(self._value(kind))
        except (struct.error, IndexError, UnicodeDecodeError, RecursionError) as exc:
            raise BusError("the system bus sent what is not understood") from exc
        return tuple(values)

    def fields(self) -> dict[int, Any]:
        """A header's: an array of structures, of which the length was read before."""
        fields = {}
        while self._at < len(self._message):
            code, value = self.values("(yv)")[0]
            fields[code] = value
        return fields

    def _value(self, kind: str) -> Any:
        match kind[0]:
            case "s" | "o":
                return self._text(self._fixed("u"))
            case "g":
                return self._text(self._fixed("y"))
            case "v":
                (inner,) = self.values(self._text(self._fixed("y")))
                return inner
            case "(":
                self._align(8)
                return self.values(kind[1:-1])
            case "a":
                length = self._fixed("u")
                self._align(8 if kind[1] in "xtd(" else 4)
                end = self._at + length
                if end > len(self._message):
                    raise IndexError
                items = []
                while self._at < end:
                    items.append(self._value(kind[1:]))
                return items
        return self._fixed(kind)

    def _fixed(self, kind: str) -> Any:
        if kind not in _FIXED:
            raise BusError(f"the system bus sent a value of type {kind!r}")
        size = struct.calcsize(f"<{_FIXED[kind]}")
        self._align(size)
        (value,) = struct.unpack_from(f"<{_FIXED[kind]}", self._message, self._at)
        self._at += size
        return value

    def _text(self, length: int) -> str:
        text = self._message[self._at : self._at + length].decode()
        self._at += length + 1
        return text

    def _align(self, boundary: int) -> None:
        self._at += -self._at % boundary


def _split(signature: str) -> tuple[str, str]:
    """The first complete type, and what follows it."""
    end = 0
    while signature[end] == "a":
        end += 1
    depth = 0
    while True:
        depth += {"(": 1, ")": -1}.get(signature[end], 0)
        end += 1
        if depth == 0:
            return signature[:end], signature[end:]

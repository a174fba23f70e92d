"""A name server for tests: A records that may be another at each question."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Self

#: Gives the addresses of a name, each time it is asked.
Answer = Callable[[], list[str]]


class NameServer:
    """On port 53 of an address of its own: resolvers know no other port. Entered to run."""

    def __init__(self, address: str, names: Mapping[str, Answer]) -> None:
        self.asked: list[str] = []
        self._names = names
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 53))
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        # The thread ends with the process: a close does not wake it.
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                question, asker = self._socket.recvfrom(4096)
            except OSError:
                return
            self._socket.sendto(self._answer(question), asker)

    def _answer(self, question: bytes) -> bytes:
        number, _flags, count = struct.unpack("!HHH", question[:6])
        labels, end = [], 12
        while length := question[end]:
            labels.append(question[end + 1 : end + 1 + length].decode("ascii").lower())
            end += 1 + length
        name, kind = ".".join(labels), struct.unpack("!H", question[end + 1 : end + 3])[0]
        self.asked.append(name)
        known = self._names.get(name)
        addresses = known() if known is not None and kind == 1 else []
        code = 0 if known is not None else 3
        head = struct.pack("!HHHHHH", number, 0x8180 | code, count, len(addresses), 0, 0)
        records = (
            struct.pack("!HHHIH", 0xC00C, 1, 1, 0, 4) + IPv4Address(address).packed
            for address in addresses
        )
        return head + question[12 : end + 5] + b"".join(records)

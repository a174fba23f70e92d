"""On a lab host: takes note of whoever gets through to port 7777, by TCP or UDP."""

from __future__ import annotations

import selectors
import socket
import sys
from pathlib import Path

PORT = 7777


def main(path: Path) -> None:
    """Append a line for each connection and datagram."""
    with selectors.DefaultSelector() as selector, path.open("w", buffering=1) as seen:
        for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                listening = socket.socket(family, kind)
                if family == socket.AF_INET6:
                    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listening.bind((anywhere, PORT))
                if kind == socket.SOCK_STREAM:
                    listening.listen()
                selector.register(listening, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready.type == socket.SOCK_STREAM:
                    connection, peer = ready.accept()
                    connection.close()
                else:
                    _, peer = ready.recvfrom(1024)
                seen.write(f"{peer}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

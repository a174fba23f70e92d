"""TLS on a socket that was accepted, for a server that says why it turns a client away."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from asyncio.sslproto import SSLProtocol

#: Seconds for a client to finish its handshake.
HANDSHAKE_S = 10
#: Seconds for a client to read why it was turned away.
FAREWELL_S = 0.2


class _TellingProtocol(SSLProtocol):
    """asyncio's own drops the alert of a failed handshake; OpenSSL's servers send it."""

    def _on_handshake_complete(self, handshake_exc: BaseException | None) -> None:
        if isinstance(handshake_exc, ssl.SSLError):
            self._process_outgoing()  # type: ignore[attr-defined]
        super()._on_handshake_complete(handshake_exc)


async def greet(
    client: socket.socket, tls: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.WriteTransport]:
    """Both directions of the client's connection, and what is beneath them, to abort.

    Raises:
        OSError: there is none, as the handshake failed.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    if tls is None:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, client)
        plain = transport
    else:
        transport, plain = await _greet_by_tls(client, tls, protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop), plain


async def _greet_by_tls(
    client: socket.socket, tls: ssl.SSLContext, protocol: asyncio.Protocol
) -> tuple[asyncio.Transport, asyncio.Transport]:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    telling = _TellingProtocol(
        loop, protocol, tls, done, server_side=True, ssl_handshake_timeout=HANDSHAKE_S
    )
    # With a second descriptor the connection outlives the transport, whose end would reset it
    # while the client has not read yet.
    with contextlib.closing(client.dup()):
        plain, _ = await loop.connect_accepted_socket(lambda: telling, client)
        try:
            await done
        except ssl.SSLError:
            await asyncio.sleep(FAREWELL_S)
            raise
        except BaseException:
            plain.abort()
            raise
    return telling._app_transport, plain  # noqa: SLF001

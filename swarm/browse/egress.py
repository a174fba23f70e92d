"""What the proxy in front of the pages says of those that it did not open.

The role `egress` runs a squid that refuses addresses which are not everybody's. Its refusals look
like pages or like broken tunnels to the browser; here they get their names.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import urlsplit

from swarm.browse.errors import ErrorCode, JobError, job_error

#: squid's header on pages of its own, such as `ERR_ACCESS_DENIED 0` or `503:ERR_DNS_FAIL 0`.
ERROR_HEADER = "x-squid-error"
#: What Chromium makes of any answer to CONNECT but 200.
TUNNEL_TEXT = "net::ERR_TUNNEL_CONNECTION_FAILED"
_ASK_TIMEOUT_S = 3.0
_MAX_HEAD_BYTES = 16_384


def refusal(headers: Mapping[str, str], url: str, *, stage: str) -> JobError | None:
    """The error that the proxy itself answered with; None when the page's server answered.

    `headers` are the answer's, names in lower case. A page that feigns them only fails itself.
    """
    name = headers.get(ERROR_HEADER, "").partition(" ")[0].rpartition(":")[2]
    if not name:
        return None
    host = urlsplit(url).hostname
    if name == "ERR_ACCESS_DENIED":
        message = f"{host} is not to be opened from here (docs/how-to/egress.md)"
        return job_error(ErrorCode.URL_BLOCKED, message, stage=stage)
    if name == "ERR_DNS_FAIL":
        return job_error(ErrorCode.DNS, f"{host} is not known", stage=stage)
    return job_error(ErrorCode.NAVIGATION, f"the egress proxy: {name} for {host}", stage=stage)


async def refusal_of_tunnel(proxy: str, url: str, *, stage: str) -> JobError | None:
    """Why the proxy makes no tunnel to the server of `url`; None when it does, or does not say.

    Asks it as the browser did: Chromium does not tell one refusal from another.
    """
    try:
        async with asyncio.timeout(_ASK_TIMEOUT_S):
            headers = await _connect(proxy, url)
    except (OSError, TimeoutError, ValueError):
        return None
    return refusal(headers, url, stage=stage)


async def _connect(proxy: str, url: str) -> dict[str, str]:
    """Headers of the answer to CONNECT, names in lower case."""
    at, to = urlsplit(proxy), urlsplit(url)
    host = f"[{to.hostname}]" if ":" in (to.hostname or "") else to.hostname
    place = f"{host}:{to.port or 443}"
    reader, writer = await asyncio.open_connection(at.hostname, at.port, limit=_MAX_HEAD_BYTES)
    try:
        writer.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode("ascii"))
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return {}
    finally:
        writer.close()
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}

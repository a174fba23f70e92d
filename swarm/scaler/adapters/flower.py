"""Queue lengths from Flower's HTTP API (`/api/queues/length`, Flower 2.x)."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Self

import aiohttp

from swarm.brokers import BrokerName
from swarm.scaler.model import Unknown
from swarm.settings import FlowerSettings

#: Redis' lists hold no more; anything larger is nonsense.
_LONGEST_QUEUE = 2**32 - 1

#: Bytes of an answer that are read. In the first a queue takes less than a hundred; the second
#: grows with workers and types of task.
_LARGEST_LENGTHS = 2**20
_LARGEST_METRICS = 16 * 2**20

#: As `swarm.brokers.counting.expose` has it.
_REQUESTS = re.compile(
    r'^swarm_broker_requests_total\{process="([0-9]+)"\} ([0-9.e+]+)$', re.MULTILINE
)


class FlowerQueues:
    """A `QueueSource`. An async context manager: it keeps one HTTP connection open."""

    def __init__(
        self,
        settings: FlowerSettings,
        credentials: str | None,
        *,
        broker: BrokerName = "primary",
        alone: bool = True,
    ) -> None:
        """`credentials` is `user:password`, or None for a Flower without any.

        Unless it is alone, what is said of it names its broker.
        """
        url = settings.fallback_url if broker == "fallback" else settings.url
        self._url = url.rstrip("/") + "/api/queues/length"
        self._metrics_url = url.rstrip("/") + "/metrics"
        self._name = "Flower" if alone else f"the {broker}'s Flower"
        # Figures of a cache on the way would be old ones.
        headers = {"Accept-Encoding": "identity", "Cache-Control": "no-cache"}
        if credentials:
            # aiohttp's BasicAuth is deprecated, its successor too new, and both refuse what is not
            # Latin-1.
            headers["Authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
        self._headers = headers
        self._timeout = aiohttp.ClientTimeout(total=settings.timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # Nothing is unpacked: a few bytes could become gigabytes.
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=self._timeout, auto_decompress=False
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def waiting(self, queues: Sequence[str]) -> Mapping[str, int | Unknown]:
        answer = await self._fetch()
        if isinstance(answer, Unknown):
            return dict.fromkeys(queues, answer)
        return {queue: self._length(answer, queue) for queue in queues}

    async def requests(self) -> tuple[int, int] | None:
        """Its process, and what that has asked of its broker; None when it does not say."""
        try:
            async with self._get(self._metrics_url) as response:
                body = await _read(response, _LARGEST_METRICS) if response.status == 200 else b""
            found = _REQUESTS.search(body.decode())
            return None if found is None else (int(found[1]), int(float(found[2])))
        except (TimeoutError, ValueError, OverflowError, _TooLargeError, aiohttp.ClientError):
            return None

    async def _fetch(self) -> Any:
        try:
            async with self._get(self._url) as response:
                if response.status == 401:
                    return Unknown(
                        f"{self._name} refused the password: check the credential flower-auth"
                    )
                if response.status != 200:
                    return Unknown(f"{self._name} answered {response.status}")
                if response.headers.get("Age", "0") != "0":
                    age = response.headers["Age"]
                    return Unknown(f"{self._name}'s answer is {age} s old: a cache is on the way")
                return json.loads(await _read(response, _LARGEST_LENGTHS))
        except _TooLargeError as exc:
            return Unknown(f"{self._name}'s answer has more than {exc.most} bytes")
        except TimeoutError:
            return Unknown(f"{self._name} did not answer in {self._timeout.total:g} s")
        except aiohttp.ClientConnectorCertificateError as exc:
            return Unknown(f"{self._name}'s certificate is refused: {exc.certificate_error}")
        except (ValueError, RecursionError):
            return Unknown(f"{self._name}'s answer is not JSON")
        except aiohttp.ClientConnectorError as exc:
            return Unknown(f"{self._name} is away: {exc.os_error.strerror or exc}")
        except aiohttp.ClientError as exc:
            return Unknown(f"{self._name} is away: {exc}")

    def _get(self, url: str) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """Ask for it. Whoever sends us elsewhere is not Flower: a page to log in, for example."""
        if self._session is None:
            raise RuntimeError("FlowerQueues is used outside its `async with` block")
        return self._session.get(url, allow_redirects=False)

    def _length(self, answer: Any, queue: str) -> int | Unknown:
        """A queue that is absent is unknown, not empty: Flower lists what workers declare.

        So is one that is listed with two lengths.
        """
        rows = answer.get("active_queues") if isinstance(answer, dict) else None
        if not isinstance(rows, list):
            return Unknown(f"{self._name}'s answer has no active_queues")
        lengths: set[int] = set()
        for row in rows:
            if isinstance(row, dict) and row.get("name") == queue:
                length = row.get("messages")
                if type(length) is not int or not 0 <= length <= _LONGEST_QUEUE:
                    told = f"{length!r:.80}"
                    return Unknown(f"{self._name} gives {told} as the length of queue {queue}")
                lengths.add(length)
        if len(lengths) > 1:
            return Unknown(f"{self._name} gives {len(lengths)} lengths of queue {queue}")
        for length in lengths:
            return length
        return Unknown(f"{self._name} does not list queue {queue}")


class _TooLargeError(Exception):
    """An answer has more than `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        super().__init__(most)


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body.

    Raises:
        _TooLargeError: it has more bytes than this.
    """
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > most:
            raise _TooLargeError(most)
    return bytes(body)

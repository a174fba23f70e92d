"""A page's requests: counted, bounded, and those that the job does not want not sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from playwright.async_api import BrowserContext, Request, Response, Route
from playwright.async_api import Error as PlaywrightError

from swarm.browse.floods import MAX_REQUESTS, MAX_REQUESTS_A_SECOND, Meter
from swarm.browse.payload.options import NetworkOptions
from swarm.browse.result import NetworkCounts
from swarm.browse.secrets import Text, is_meant_for


class Traffic:
    """Watches one context. `on_excess` is called once with what was too much."""

    def __init__(self, *, max_bytes: int, on_excess: Callable[[str], None]) -> None:
        self._max_bytes = max_bytes
        self._on_excess = on_excess
        self._requests = Meter(MAX_REQUESTS, MAX_REQUESTS_A_SECOND)
        self._failed = self._blocked = self._bytes = 0
        self._exceeded = False
        self._unmeasured: set[Request] = set()
        self._measuring: set[asyncio.Task[None]] = set()
        self._context: BrowserContext | None = None
        self._listeners: dict[str, Callable[[Any], None]] = {
            "request": self._on_request,
            "response": self._on_response,
            "requestfinished": self._on_finished,
            "requestfailed": self._on_failed,
        }

    async def attach(
        self,
        context: BrowserContext,
        options: NetworkOptions,
        secret_headers: Mapping[str, Text],
    ) -> None:
        """Begin to count; and to intercept, where the job needs it, as that costs time."""
        self._context = context
        for event, listener in self._listeners.items():
            context.on(event, listener)  # type: ignore[call-overload]
        # The route that was added last is asked first: a blocked request gets no header.
        if secret_headers:
            await context.route("**/*", _header_adder(secret_headers))
        if options.block_resources:
            await context.route("**/*", self._type_blocker(frozenset(options.block_resources)))
        for pattern in options.block_patterns:
            await context.route(pattern, self._block)

    def counts(self) -> NetworkCounts:
        return NetworkCounts(
            requests=self._requests.count,
            failed=max(0, self._failed - self._blocked),
            blocked=self._blocked,
            bytes=self._bytes,
        )

    def close(self) -> None:
        for task in self._measuring:
            task.cancel()

    def _on_request(self, _request: Request) -> None:
        if self._requests.add():
            self._exceed(f"the page made too many requests, the last of {self._requests.count}")

    def _on_failed(self, _request: Request) -> None:
        self._failed += 1

    def _on_response(self, response: Response) -> None:
        """Sizes that are announced are believed: to ask for each costs a sixth of a page's time."""
        announced = response.headers.get("content-length", "")
        if announced.isdecimal():
            self._receive(int(announced[:18]))
        else:
            self._unmeasured.add(response.request)

    def _on_finished(self, request: Request) -> None:
        if request not in self._unmeasured:
            return
        self._unmeasured.discard(request)
        task = asyncio.ensure_future(self._measure(request))
        self._measuring.add(task)
        task.add_done_callback(self._measuring.discard)

    async def _measure(self, request: Request) -> None:
        with suppress(PlaywrightError):
            sizes = await request.sizes()
            self._receive(max(0, sizes["responseBodySize"]))

    def _receive(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            self._exceed(f"the page sent more than {self._max_bytes} bytes")

    def _exceed(self, message: str) -> None:
        if self._exceeded:
            return
        self._exceeded = True
        if self._context is not None:
            # The driver then tells of no more, whatever the page goes on to do.
            for event, listener in self._listeners.items():
                self._context.remove_listener(event, listener)
        self._on_excess(message)

    def _type_blocker(self, types: frozenset[str]) -> Callable[[Route], object]:
        async def handle(route: Route) -> None:
            if route.request.resource_type in types:
                await self._block(route)
            else:
                with suppress(PlaywrightError):
                    await route.fallback()

        return handle

    async def _block(self, route: Route) -> None:
        self._blocked += 1
        with suppress(PlaywrightError):
            await route.abort("blockedbyclient")


def _header_adder(headers: Mapping[str, Text]) -> Callable[[Route], object]:
    async def handle(route: Route) -> None:
        request = route.request
        added = {
            name.lower(): secret.value
            for name, secret in headers.items()
            if is_meant_for(secret.hosts, request.url)
        }
        with suppress(PlaywrightError):
            await route.fallback(headers={**request.headers, **added} if added else None)

    return handle

"""One variant of `bench.variants` at work, in a process of its own.

Prints `ready`; then, for each line with a number of jobs, does them and prints the seconds that
they took.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from bench.page import ELEMENTS, payload
from bench.unprivileged import can_sandbox
from bench.variants import VARIANTS, Variant
from swarm.browse import chromium, floods, reading, recordings, traffic
from swarm.browse.chromium import ARGUMENTS
from swarm.browse.directory_store import DirectoryStore
from swarm.browse.engine import Engine
from swarm.browse.payload import parse_browser_job
from swarm.browse.secrets import Secrets
from swarm.browse.visit import Deployment
from swarm.settings import BrowserSettings

_Opened = tuple[BrowserContext, Page]


class RawLoop:
    """The loop of `bench.raw` with a change."""

    def __init__(self, variant: Variant, browser: Browser, url: str, directory: Path) -> None:
        self._variant = variant
        self._browser = browser
        self._url = url
        self._directory = directory
        self._ready: list[asyncio.Future[_Opened]] = []

    async def do_jobs(self, jobs: int, at_once: int) -> None:
        """All of them, so many at once."""
        numbers = iter(range(jobs))
        if self._variant.prepared:
            self._ready = [asyncio.ensure_future(self._open()) for _ in range(at_once)]

        async def work() -> None:
            for number in numbers:
                await self._do(self._directory / f"{number}.png")

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(work())
        for opening in self._ready:
            await (await opening)[0].close()
        self._ready.clear()

    async def _open(self) -> _Opened:
        context = await self._browser.new_context()
        return context, await context.new_page()

    async def _next(self) -> _Opened:
        if not self._variant.prepared:
            return await self._open()
        opening = self._ready.pop(0)
        self._ready.append(asyncio.ensure_future(self._open()))
        return await opening

    async def _do(self, picture: Path) -> None:
        context, page = await self._next()
        await page.goto(self._url)
        if await page.locator("li").count() != ELEMENTS:
            raise RuntimeError(f"{self._url} has not {ELEMENTS} elements")
        if self._variant.picture == "driver":
            await page.screenshot(path=picture, **self._variant.options)
        elif self._variant.picture != "none":
            session = await context.new_cdp_session(page)
            how = {"format": "png", "optimizeForSpeed": self._variant.picture == "fast"}
            answer = await session.send("Page.captureScreenshot", how)
            await asyncio.to_thread(picture.write_bytes, base64.b64decode(answer["data"]))
        await context.close()


async def run_raw(variant: Variant, options: argparse.Namespace) -> None:
    """Answer until the input ends."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=variant.executable,
            chromium_sandbox=can_sandbox(),
            args=[*ARGUMENTS, *variant.arguments],
        )
        loop = RawLoop(variant, browser, options.url, options.directory)
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            begun = time.monotonic()
            await loop.do_jobs(int(line), options.at_once)
            print(time.monotonic() - begun, flush=True)
        await browser.close()


def run_engine(variant: Variant, options: argparse.Namespace) -> None:
    """Answer until the input ends."""
    settings = BrowserSettings(
        executable=Path(variant.executable),
        sandbox=can_sandbox(),
        artifacts_directory=options.directory,
        uses_before_retirement=100_000,
    )
    store = DirectoryStore(options.directory, host="localhost")
    job = parse_browser_job(payload(options.url))
    with ExitStack() as stack:
        stack.enter_context(
            mock.patch.object(chromium, "ARGUMENTS", (*ARGUMENTS, *variant.arguments))
        )
        for name in variant.without:
            stack.enter_context(_LEFT_OUT[name]())
        engine = Engine(Deployment(settings, store, Secrets({})))
        engine.start()
        stack.callback(engine.stop)
        pool = stack.enter_context(ThreadPoolExecutor(options.at_once))
        print("ready", flush=True)
        for line in sys.stdin:
            begun = time.monotonic()
            for result in pool.map(engine.run, [job] * int(line)):
                if result.status != "ok":
                    raise RuntimeError(f"a job ended as {result.status}: {result.error}")
            print(time.monotonic() - begun, flush=True)


@contextmanager
def _no_listeners() -> Iterator[None]:
    """Requests, windows, errors and the console are not heard of."""

    async def attach(*_arguments: object) -> None:
        """Listen to nothing."""

    def watch(*_arguments: object) -> None:
        """Listen to nothing."""

    with (
        mock.patch.object(traffic.Traffic, "attach", attach),
        mock.patch.object(floods.Floods, "watch", watch),
        mock.patch.object(recordings.Recordings, "start", attach),
    ):
        yield


_LEFT_OUT: dict[str, Callable[[], Any]] = {
    "listeners": _no_listeners,
    "devtools": partial(mock.patch.object, reading, "DevTools", lambda _page: None),
    "niceness": partial(mock.patch.object, chromium, "_PAGE_NICENESS", 0),
}


def main() -> None:
    """Be the variant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("url")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--at-once", type=int, required=True)
    options = parser.parse_args()
    variant = VARIANTS[options.variant]
    if variant.by == "raw":
        asyncio.run(run_raw(variant, options))
    else:
        run_engine(variant, options)


if __name__ == "__main__":
    main()

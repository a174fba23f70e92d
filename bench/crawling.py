"""The same work with Crawlee for Python, in a virtual environment of its own.

Prints `ready`; then, for each line with a number of jobs, does them with a new crawler and prints
the seconds from its first page to its last: what it needs to start is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import uuid
from datetime import timedelta
from pathlib import Path

from crawlee import ConcurrencySettings, Request
from crawlee.crawlers import PlaywrightCrawler, PlaywrightCrawlingContext
from crawlee.storage_clients import MemoryStorageClient


async def crawl(options: argparse.Namespace, jobs: int) -> float:
    """Seconds that so many jobs take.

    Raises:
        RuntimeError: not all of them ended well.
    """
    crawler = PlaywrightCrawler(
        browser_launch_options={
            "executable_path": options.chromium,
            "chromium_sandbox": os.geteuid() != 0,
            "args": options.arguments,
        },
        **({"fingerprint_generator": None} if options.lean else {}),
        concurrency_settings=ConcurrencySettings(
            min_concurrency=options.at_once,
            desired_concurrency=options.at_once,
            max_concurrency=options.at_once,
        ),
        storage_client=MemoryStorageClient(),
        request_handler_timeout=timedelta(seconds=60),
        configure_logging=False,
    )
    begun: list[float] = []
    ended: list[float] = []

    async def begin(_context: object) -> None:
        begun.append(time.monotonic())

    async def handle(context: PlaywrightCrawlingContext) -> None:
        if await context.page.locator("li").count() != options.elements:
            raise RuntimeError(f"{context.request.url}: another number of elements")
        await context.page.screenshot(path=options.directory / f"{len(ended)}.png")
        ended.append(time.monotonic())

    crawler.pre_navigation_hook(begin)
    crawler.router.default_handler(handle)
    await crawler.run(
        # Crawlers share a queue, which takes no key twice.
        [Request.from_url(options.url, unique_key=uuid.uuid4().hex) for _ in range(jobs)]
    )
    if len(ended) != jobs:
        raise RuntimeError(f"{len(ended)} of {jobs} jobs ended well")
    return ended[-1] - begun[0]


async def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--elements", type=int, required=True)
    parser.add_argument("--chromium", required=True)
    parser.add_argument("--lean", action="store_true", help="without its disguise")
    parser.add_argument("--arguments", type=str.split, help="the browser's")
    options = parser.parse_args()
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(await crawl(options, int(line)), flush=True)


if __name__ == "__main__":
    asyncio.run(main())

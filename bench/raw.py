"""The limit: a loop of async Playwright on one warm browser, and nothing else.

Prints `ready`; then, for each line with a number of jobs, does them and prints the seconds that
they took.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path

from playwright.async_api import Browser, async_playwright

from bench.page import CHROMIUM, ELEMENTS
from bench.unprivileged import can_sandbox
from swarm.browse.chromium import ARGUMENTS


async def do_job(browser: Browser, url: str, picture: Path) -> None:
    """Open, count, picture.

    Raises:
        RuntimeError: it is another page.
    """
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(url)
        if await page.locator("li").count() != ELEMENTS:
            raise RuntimeError(f"{url} has not {ELEMENTS} elements")
        await page.screenshot(path=picture)
    finally:
        await context.close()


async def do_jobs(browser: Browser, url: str, directory: Path, *, jobs: int, at_once: int) -> None:
    """All of them, so many at once."""
    numbers = iter(range(jobs))

    async def work() -> None:
        for number in numbers:
            await do_job(browser, url, directory / f"{number}.png")

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


async def main() -> None:
    """Answer until the input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--at-once", type=int, required=True)
    options = parser.parse_args()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, chromium_sandbox=can_sandbox(), args=list(ARGUMENTS)
        )
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            begun = time.monotonic()
            await do_jobs(
                browser, options.url, options.directory, jobs=int(line), at_once=options.at_once
            )
            print(time.monotonic() - begun, flush=True)
        await browser.close()


if __name__ == "__main__":
    asyncio.run(main())

"""How large pictures are: `make bench-pictures`.

PNGs of the viewport as the product takes them, with Chromium's fast encoder, against Playwright's
of the same pages. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping

from playwright.async_api import async_playwright

from bench import unprivileged
from bench.page import CHROMIUM
from swarm.browse.chromium import ARGUMENTS
from swarm.browse.devtools import DevTools
from swarm.browse.reading import once_drawn

_NOISE = """<canvas id=c width=1280 height=720></canvas><script>
  const context = c.getContext('2d'), image = context.createImageData(1280, 720);
  let seed = 1;
  for (let at = 0; at < image.data.length; at += 4) {
    seed = (seed * 1103515245 + 12345) & 0x7fffffff;
    const x = at / 4 % 1280, y = at / 4 / 1280 | 0, noise = (seed >> 16) % 12;
    image.data.set([128 + 90 * Math.sin(x / 90 + y / 50) + noise,
      128 + 90 * Math.sin(x / 70 - y / 110) + noise, 128 + 80 * Math.cos(y / 60) + noise, 255], at);
  }
  context.putImageData(image, 0, 0);
</script>"""
PAGES: Mapping[str, str] = {
    "text": "<p>Words of a page, and more words, in a line that is long enough to wrap.</p>" * 60,
    "photograph": _NOISE,
    "nothing": "",
}


async def measure() -> dict[str, dict[str, float]]:
    """Bytes by page."""
    sizes: dict[str, dict[str, float]] = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            chromium_sandbox=unprivileged.can_sandbox(),
            args=list(ARGUMENTS),
        )
        page = await browser.new_page()
        devtools = DevTools(page)
        for name, markup in PAGES.items():
            await page.set_content(f"<!doctype html>{markup}")
            theirs = len(await once_drawn(page.screenshot))
            ours = len(await once_drawn(lambda: devtools.screenshot(encoding="png", quality=None)))
            sizes[name] = {
                "bytes": ours,
                "playwright_bytes": theirs,
                "ratio": round(ours / theirs, 2),
            }
        await browser.close()
    return sizes


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    unprivileged.add_argument(parser)
    unprivileged.leave_root(parser.parse_args())
    print(json.dumps(asyncio.run(measure())))
    return 0


if __name__ == "__main__":
    sys.exit(main())

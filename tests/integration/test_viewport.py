"""The picture by one call is the picture that Playwright takes, pixel by pixel."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from playwright.async_api import Page, Route, async_playwright
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from swarm.browse import viewport
from swarm.browse.chromium import ARGUMENTS
from swarm.browse.payload import BrowserJob, parse_browser_job
from tests.programs import CHROMIUM, need

_LOREM = "<p>Words of a page, and more words, in a line that is long enough to wrap.</p>" * 60
_TILES = "".join(
    f'<b style="display:inline-block;width:90px;height:70px;background:hsl({hue} 80% 60%)"></b>'
    for hue in range(0, 360, 2)
)
#: Pages that are pictured here, by what is special about each.
PLAIN = {
    "words": _LOREM,
    "nothing": "",
    "colours": _TILES,
    "scrolled": f"{_LOREM}<script>scrollTo(0, 333)</script>",
    "fixed": f'{_LOREM}<div style="position:fixed;right:0;top:9px;background:#fc0">fixed</div>',
    "frame": f'<iframe srcdoc="<h1>inner</h1>" width=300></iframe>{_LOREM}',
    "dark": "<style>@media (prefers-color-scheme: dark) { body { background: #222 } }</style>x",
    "drawn": "<canvas id=c></canvas><script>c.getContext('2d').fillRect(9, 9, 50, 50)</script>",
    "zoomed": f'<body style="zoom: 1.7">{_LOREM}',
    "wide": f'<div style="width:4000px">{_LOREM}</div>',
    "transparent": '<html style="background:transparent"><body>seen through',
    "quirks": f"<p>{_TILES}",
}
#: Pages that Playwright has to picture.
FOCUSED = {
    "input": "<input id=i value=words><script>i.focus()</script>",
    "link": "<a href=/ id=a>link</a><script>a.focus()</script>",
    "frame": '<iframe id=f srcdoc="<input>"></iframe><script>f.focus()</script>',
    "editable-body": "<body contenteditable>words",
    "design-mode": "words<script>document.designMode = 'on'</script>",
}

Use = Callable[[Page], Coroutine[Any, Any, Any]]


def on_page(markup: str, use: Use, **context_options: Any) -> Any:
    need(CHROMIUM, "chromium-headless-shell")

    async def run() -> Any:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=CHROMIUM, args=list(ARGUMENTS)
            )
            options = {"viewport": {"width": 1280, "height": 800}} | context_options
            page = await browser.new_page(**options)
            await page.set_content(f"<!doctype html>{markup}")
            try:
                return await use(page)
            finally:
                await browser.close()

    return asyncio.run(run())


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height in pixels."""
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def check_same(markup: str, **context_options: Any) -> None:
    async def compare(page: Page) -> None:
        ours = await viewport.capture(page, encoding="png", quality=None, timeout_ms=10_000)
        assert ours is not None
        theirs = await page.screenshot()
        size = page.viewport_size
        assert size is not None
        assert size_of(ours) == (size["width"], size["height"])
        # The same encoder was given the same pixels.
        assert ours == theirs

    on_page(markup, compare, **context_options)


@pytest.mark.parametrize("name", PLAIN)
def test_it_shows_what_playwrights_own_picture_shows(name: str) -> None:
    check_same(PLAIN[name])


@pytest.mark.parametrize("size", [(100, 100), (320, 240), (1281, 719), (1920, 1080), (4096, 4096)])
def test_it_has_the_size_of_the_viewport(size: tuple[int, int]) -> None:
    check_same(PLAIN["colours"], viewport={"width": size[0], "height": size[1]})


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "dark"},
        {"locale": "ar-EG", "timezone_id": "Africa/Cairo"},
        {"reduced_motion": "reduce", "forced_colors": "active"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_it_is_of_the_page_as_its_visitor_sees_it(options: dict[str, Any]) -> None:
    check_same(PLAIN["dark"], **options)


@pytest.mark.parametrize("name", FOCUSED)
def test_where_something_has_the_focus_playwright_hides_the_caret(name: str) -> None:
    async def use(page: Page) -> bytes | None:
        return await viewport.capture(page, encoding="png", quality=None, timeout_ms=10_000)

    assert on_page(FOCUSED[name], use) is None


def test_it_waits_for_the_fonts_of_the_page() -> None:
    """The font is served late: what is pictured before it comes is a page without words."""

    async def use(page: Page) -> tuple[bytes | None, str]:
        async def serve_late(route: Route) -> None:
            await asyncio.sleep(0.7)
            await route.abort()

        await page.route("**/late.woff2", serve_late)
        await page.evaluate(
            """() => {
              document.body.style.fontFamily = 'Late';
              const face = new FontFace('Late', 'url(http://127.0.0.1/late.woff2)');
              document.fonts.add(face);
              face.load().catch(() => {});
            }"""
        )
        picture = await viewport.capture(page, encoding="png", quality=None, timeout_ms=10_000)
        return picture, await page.evaluate("document.fonts.status")

    picture, status = on_page(PLAIN["words"], use)
    assert picture is not None
    assert status == "loaded"


def test_it_shows_the_page_of_now() -> None:
    async def use(page: Page) -> None:
        for hue in range(0, 360, 30):
            await page.evaluate(f"document.body.style.background = 'hsl({hue} 90% 50%)'")
            ours = await viewport.capture(page, encoding="png", quality=None, timeout_ms=10_000)
            assert ours == await page.screenshot(), hue

    on_page(PLAIN["words"], use)


def test_a_jpeg_is_of_the_quality_that_was_asked_for() -> None:
    async def use(page: Page) -> None:
        for quality in (None, 5, 100):
            ours = await viewport.capture(page, encoding="jpeg", quality=quality, timeout_ms=10_000)
            theirs = await page.screenshot(type="jpeg", quality=quality)
            assert ours == theirs, quality

    on_page(PLAIN["colours"], use)


@pytest.mark.parametrize(
    "script",
    [
        "setTimeout(() => { for (;;); })",
        "Object.defineProperty(document, 'fonts', {value: {ready: new Promise(() => {})}})",
    ],
    ids=["endless loop", "fonts that never come"],
)
def test_a_page_that_does_not_answer_is_given_up_in_time(script: str) -> None:
    async def use(page: Page) -> None:
        await page.evaluate(script)
        await asyncio.sleep(0.1)
        with pytest.raises(PlaywrightTimeoutError, match="300ms"):
            await viewport.capture(page, encoding="png", quality=None, timeout_ms=300)

    on_page(PLAIN["words"], use)


def job(**sections: Any) -> BrowserJob:
    return parse_browser_job(
        {"url": "http://127.0.0.1/", "actions": [{"kind": "text"}], **sections}
    )


@pytest.mark.parametrize("context", [{}, {"viewport": {"width": 200, "height": 100}}], ids=str)
def test_plain_jobs_are_pictured_here(context: dict[str, Any]) -> None:
    assert viewport.is_plain(job(context=context))


@pytest.mark.parametrize(
    "sections",
    [
        {"context": {"viewport": {"width": 200, "height": 100, "scale": 2}}},
        {"context": {"device": "Pixel 7"}},
        {"context": {"javascript": False}},
        {"capture": {"trace": "on_failure"}},
    ],
    ids=str,
)
def test_others_are_left_to_playwright(sections: dict[str, Any]) -> None:
    assert not viewport.is_plain(job(**sections))

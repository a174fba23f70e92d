"""A picture on the short way is the one that Playwright takes, pixel by pixel."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page, Route
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from swarm.browse.devtools import DevTools
from swarm.browse.reading import once_drawn
from tests.integration.page_stage import LEFT_TO_PLAYWRIGHT, PageStage, Short

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

_COMPARE = """async ([one, other]) => {
  const pixels = async picture => {
    const bitmap = await createImageBitmap(await (await fetch(picture)).blob());
    const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
    const context = canvas.getContext('2d');
    context.drawImage(bitmap, 0, 0);
    return [bitmap, context.getImageData(0, 0, bitmap.width, bitmap.height).data];
  };
  const [[bitmap, these], [, those]] = [await pixels(one), await pixels(other)];
  const same = these.length === those.length && these.every((value, at) => value === those[at]);
  return [bitmap.width, bitmap.height, same];
}"""


@pytest.fixture(scope="module")
def stage() -> Iterator[PageStage]:
    with PageStage() as stage:
        yield stage


async def check_same(page: Page, ours: bytes, theirs: bytes) -> None:
    """Pixel by pixel, as the browser itself decodes them."""
    urls = [f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in (ours, theirs)]
    browser = page.context.browser
    assert browser is not None
    judge = await browser.new_page()
    width, height, same = await judge.evaluate(_COMPARE, urls)
    await judge.close()
    assert {"width": width, "height": height} == page.viewport_size
    assert same


def check_picture(stage: PageStage, markup: str, **context_options: Any) -> None:
    async def compare(page: Page) -> None:
        await check_same(page, await Short(page).png(), await page.screenshot())

    stage.on_page(markup, compare, **context_options)


@pytest.mark.parametrize("name", PLAIN)
def test_a_picture_shows_what_playwrights_own_shows(stage: PageStage, name: str) -> None:
    check_picture(stage, PLAIN[name])


def test_two_pictures_that_differ_by_a_pixel_are_told_apart(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        first = await Short(page).png()
        await page.evaluate("document.body.innerHTML += '<b id=b>'")
        await page.add_style_tag(
            content="#b { position: fixed; width: 1px; height: 1px; background: red }"
        )
        with pytest.raises(AssertionError):
            await check_same(page, await Short(page).png(), first)

    stage.on_page("", use)


@pytest.mark.parametrize("size", [(100, 100), (320, 240), (1281, 719), (1920, 1080), (4096, 4096)])
def test_a_picture_has_the_size_of_the_viewport(stage: PageStage, size: tuple[int, int]) -> None:
    check_picture(stage, PLAIN["colours"], viewport={"width": size[0], "height": size[1]})


@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "dark"},
        {"locale": "ar-EG", "timezone_id": "Africa/Cairo"},
        {"reduced_motion": "reduce", "forced_colors": "active"},
        {"java_script_enabled": False},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_picture_is_of_the_page_as_its_visitor_sees_it(
    stage: PageStage, options: dict[str, Any]
) -> None:
    check_picture(stage, PLAIN["dark"], **options)


def test_a_picture_shows_the_page_of_now(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        for hue in range(0, 360, 60):
            await page.evaluate(f"document.body.style.background = 'hsl({hue} 90% 50%)'")
            await check_same(page, await Short(page).png(), await page.screenshot())

    stage.on_page(PLAIN["words"], use)


@pytest.mark.parametrize("name", FOCUSED)
def test_where_something_has_the_focus_playwright_hides_the_caret(
    stage: PageStage, name: str
) -> None:
    async def use(page: Page) -> None:
        with LEFT_TO_PLAYWRIGHT:
            await Short(page).png()

    stage.on_page(FOCUSED[name], use)


@pytest.mark.parametrize(
    "sections",
    [
        {"context": {"viewport": {"width": 200, "height": 100, "scale": 2}}},
        {"context": {"device": "Pixel 7"}},
        {"capture": {"trace": "on_failure"}},
    ],
    ids=str,
)
def test_scaled_pages_and_what_a_trace_is_to_show_are_left_to_playwright(
    stage: PageStage,
    sections: dict[str, Any],
) -> None:
    async def use(page: Page) -> None:
        with LEFT_TO_PLAYWRIGHT:
            await Short(page, **sections).png()

    stage.on_page(PLAIN["words"], use)


def test_a_page_that_was_opened_just_now_is_pictured_once_it_is_drawn(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        refused = 0
        browser = page.context.browser
        assert browser is not None
        for number in range(40):
            other = await browser.new_page()
            devtools = DevTools(other)
            await devtools.evaluate("() => 0")
            await other.goto(f"data:text/html,<h1>{number}", wait_until="commit")

            async def take(devtools: DevTools = devtools) -> bytes:
                nonlocal refused
                try:
                    return await devtools.screenshot(encoding="png", quality=None)
                except PlaywrightError:
                    refused += 1
                    raise

            assert (await once_drawn(take)).startswith(b"\x89PNG")
            await other.close()
        # Without this the test could not fail.
        assert refused > 0

    stage.on_page("", use)


def test_whatever_else_a_picture_fails_with_is_told_at_once() -> None:
    tries = []

    async def take() -> bytes:
        tries.append(1)
        raise PlaywrightError("Target crashed")

    with pytest.raises(PlaywrightError, match="Target crashed"):
        asyncio.run(once_drawn(take))
    assert tries == [1]


def test_a_page_that_is_never_drawn_is_given_up() -> None:
    async def take() -> bytes:
        raise PlaywrightError("Protocol error: Unable to capture screenshot")

    with pytest.raises(PlaywrightError, match="Unable to capture"):
        asyncio.run(once_drawn(take))


def test_a_picture_waits_for_the_fonts_of_the_page(stage: PageStage) -> None:
    """The font is served late: what is pictured before it comes is a page without words."""

    async def use(page: Page) -> str:
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
        assert await page.evaluate("document.fonts.status") == "loading"
        await Short(page).png()
        status: str = await page.evaluate("document.fonts.status")
        return status

    assert stage.on_page(PLAIN["words"], use) == "loaded"


def test_a_jpeg_is_of_the_quality_that_was_asked_for(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        for quality in (None, 5, 100):
            ours = await Short(page).viewport(encoding="jpeg", quality=quality, timeout_ms=10_000)
            # The same encoder was given the same pixels.
            assert ours == await page.screenshot(type="jpeg", quality=quality), quality

    stage.on_page(PLAIN["colours"], use)


_NO_FONTS = "Object.defineProperty(document, 'fonts', {value: {ready: new Promise(() => {})}})"


@pytest.mark.parametrize(
    "script",
    ["setTimeout(() => { for (;;); })", _NO_FONTS],
    ids=["endless loop", "fonts that never come"],
)
def test_a_page_that_does_not_answer_is_given_up_in_time(stage: PageStage, script: str) -> None:
    async def use(page: Page) -> None:
        await page.evaluate(script)
        await asyncio.sleep(0.1)
        with pytest.raises(PlaywrightTimeoutError, match="300ms"):
            await Short(page).png(timeout_ms=300)

    stage.on_page(PLAIN["words"], use)

"""What is read on the short way is what Playwright reads, and what is not is left to it."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, suppress
from typing import Any
from unittest import mock

import pytest
from playwright.async_api import Browser, Page, Route, async_playwright
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

from swarm.browse.chromium import ARGUMENTS
from swarm.browse.devtools import DevTools
from swarm.browse.payload import BrowserJob, parse_browser_job
from swarm.browse.reading import Reader, once_drawn
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


class Stage:
    """One browser for all tests, and the loop that it runs on."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._entered = AsyncExitStack()
        self._browser = self._runner.run(self._launch())

    async def _launch(self) -> Browser:
        playwright = await self._entered.enter_async_context(async_playwright())
        return await playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))

    def on_page(self, markup: str, use: Use, **context_options: Any) -> Any:
        """What `use` gives of a page with this markup."""
        return self._runner.run(self._use(markup, use, context_options))

    async def _use(self, markup: str, use: Use, context_options: dict[str, Any]) -> Any:
        options = {"viewport": {"width": 1280, "height": 800}} | context_options
        page = await self._browser.new_page(**options)
        try:
            await page.set_content(f"<!doctype html>{markup}")
            return await use(page)
        finally:
            await page.close()

    def close(self) -> None:
        self._runner.run(self._entered.aclose())
        self._runner.close()


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    need(CHROMIUM, "chromium-headless-shell")
    stage = Stage()
    yield stage
    stage.close()


def job(**sections: Any) -> BrowserJob:
    return parse_browser_job(
        {"url": "http://127.0.0.1/", "actions": [{"kind": "text"}], **sections}
    )


class Short(Reader):
    """Has nobody else to ask: what is not read on the short way is an error."""

    def __init__(self, page: Page, **sections: Any) -> None:
        super().__init__(page, job(**sections))
        nobody = mock.Mock(spec=[])
        self._page = nobody

    async def png(self, timeout_ms: float = 10_000) -> bytes:
        return await self.viewport(encoding="png", quality=None, timeout_ms=timeout_ms)


#: What a reader raises that has nobody else to ask.
LEFT_TO_PLAYWRIGHT = pytest.raises(AttributeError, match=r"screenshot|locator|title|content")

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


async def check_same(page: Page, ours: bytes, theirs: bytes) -> None:
    """Pixel by pixel, as the browser itself decodes them."""
    urls = [f"data:image/png;base64,{base64.b64encode(each).decode()}" for each in (ours, theirs)]
    browser = page.context.browser
    assert browser is not None
    judge = await browser.new_page()
    width, height, same = await judge.evaluate(_COMPARE, urls)
    assert {"width": width, "height": height} == page.viewport_size
    assert same


def check_picture(stage: Stage, markup: str, **context_options: Any) -> None:
    async def compare(page: Page) -> None:
        await check_same(page, await Short(page).png(), await page.screenshot())

    stage.on_page(markup, compare, **context_options)


@pytest.mark.parametrize("name", PLAIN)
def test_a_picture_shows_what_playwrights_own_shows(stage: Stage, name: str) -> None:
    check_picture(stage, PLAIN[name])


def test_two_pictures_that_differ_by_a_pixel_are_told_apart(stage: Stage) -> None:
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
def test_a_picture_has_the_size_of_the_viewport(stage: Stage, size: tuple[int, int]) -> None:
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
    stage: Stage, options: dict[str, Any]
) -> None:
    check_picture(stage, PLAIN["dark"], **options)


def test_a_picture_shows_the_page_of_now(stage: Stage) -> None:
    async def use(page: Page) -> None:
        for hue in range(0, 360, 60):
            await page.evaluate(f"document.body.style.background = 'hsl({hue} 90% 50%)'")
            await check_same(page, await Short(page).png(), await page.screenshot())

    stage.on_page(PLAIN["words"], use)


@pytest.mark.parametrize("name", FOCUSED)
def test_where_something_has_the_focus_playwright_hides_the_caret(stage: Stage, name: str) -> None:
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
    stage: Stage,
    sections: dict[str, Any],
) -> None:
    async def use(page: Page) -> None:
        with LEFT_TO_PLAYWRIGHT:
            await Short(page, **sections).png()

    stage.on_page(PLAIN["words"], use)


def test_a_page_that_was_opened_just_now_is_pictured_once_it_is_drawn(stage: Stage) -> None:
    async def use(page: Page) -> None:
        refused = 0
        for number in range(40):
            other = await page.context.browser.new_page()  # type: ignore[union-attr]
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


def test_a_picture_waits_for_the_fonts_of_the_page(stage: Stage) -> None:
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


def test_a_jpeg_is_of_the_quality_that_was_asked_for(stage: Stage) -> None:
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
def test_a_page_that_does_not_answer_is_given_up_in_time(stage: Stage, script: str) -> None:
    async def use(page: Page) -> None:
        await page.evaluate(script)
        await asyncio.sleep(0.1)
        with pytest.raises(PlaywrightTimeoutError, match="300ms"):
            await Short(page).png(timeout_ms=300)

    stage.on_page(PLAIN["words"], use)


_ROWS = "<ul id=rows>" + '<li class="row" data-n="7">one</li>' * 3 + "</ul><p>  two\n words</p>"
_SHADOW = "<div id=h></div><script>h.attachShadow({mode: 'open'}).innerHTML = '<p>in</p>'</script>"


@pytest.mark.parametrize(
    "selector",
    [
        "li",
        ".row",
        "#rows > li.row",
        "ul li, p",
        "li + li",
        "li ~ li",
        "*",
        '[data-n="7"]',
        "li[data-n]",
        "[data-n='8']",
        "absent",
    ],
)
def test_elements_are_counted_as_playwright_counts_them(stage: Stage, selector: str) -> None:
    async def use(page: Page) -> None:
        assert await Short(page).count(selector) == await page.locator(selector).count()

    stage.on_page(_ROWS, use)


@pytest.mark.parametrize(
    "selector",
    [
        "text=one",
        "//li",
        "..",
        "ul >> li",
        "ul>>li",
        "css=li",
        "li:visible",
        ":text('one')",
        "'one'",
    ],
)
def test_selectors_of_playwrights_own_are_left_to_it(stage: Stage, selector: str) -> None:
    async def use(page: Page) -> None:
        with LEFT_TO_PLAYWRIGHT:
            await Short(page).count(selector)
        assert await Reader(page, job()).count(selector) == await page.locator(selector).count()

    stage.on_page(_ROWS, use)


def test_a_selector_that_does_not_parse_is_playwrights_to_refuse(stage: Stage) -> None:
    async def use(page: Page) -> None:
        with pytest.raises(PlaywrightError, match="li > > "):
            await Reader(page, job()).count("li > > li")
        with pytest.raises(PlaywrightError, match="li,,"):
            await Reader(page, job()).count("li,,li")

    stage.on_page(_ROWS, use)


def test_shadow_trees_are_playwrights_to_look_into(stage: Stage) -> None:
    async def use(page: Page) -> None:
        reader = Reader(page, job())
        assert await reader.count("p") == 1
        assert await reader.inner_text("p", timeout_ms=5000) == "in"
        with LEFT_TO_PLAYWRIGHT:
            await Short(page).count("p")

    stage.on_page(_SHADOW, use)


def test_text_is_that_of_the_first_element(stage: Stage) -> None:
    async def use(page: Page) -> None:
        for selector in ("p", "li", "body"):
            text = await page.locator(selector).first.inner_text()
            assert await Short(page).inner_text(selector, timeout_ms=5000) == text

    stage.on_page(_ROWS, use)


def test_text_that_comes_late_is_waited_for(stage: Stage) -> None:
    async def use(page: Page) -> str:
        await page.evaluate(
            "setTimeout(() => document.body.insertAdjacentHTML('beforeend', '<h2>late</h2>'), 300)"
        )
        return await Reader(page, job()).inner_text("h2", timeout_ms=5000)

    assert stage.on_page(_ROWS, use) == "late"


@pytest.mark.parametrize("markup", [_ROWS, "<html lang=de><title>é \u2028 \U0001f600</title>x", ""])
@pytest.mark.parametrize("options", [{}, {"java_script_enabled": False}], ids=str)
def test_markup_and_title_are_what_playwright_reads(
    stage: Stage, markup: str, options: dict[str, Any]
) -> None:
    async def use(page: Page) -> None:
        short = Short(page)
        assert await short.content() == await page.content()
        assert await short.title() == await page.title()

    stage.on_page(markup, use, **options)


def test_a_title_that_the_page_took_away_is_asked_of_playwright(stage: Stage) -> None:
    async def use(page: Page) -> None:
        assert await Reader(page, job()).title() == await page.title()

    stage.on_page("<title>t</title><form name=title></form>", use)


def test_values_pass_through_as_they_are(stage: Stage) -> None:
    async def use(page: Page) -> None:
        for value in ("a\u2028b'\"</script>`${1}", [1, 2.5, None, True], {"k": {"n": "é"}}):
            assert await Short(page).evaluate("value => ({value})", value) == {"value": value}

    stage.on_page("", use)


def test_what_throws_throws_as_playwright_has_it(stage: Stage) -> None:
    async def use(page: Page) -> None:
        with pytest.raises(PlaywrightError, match="no such thing"):
            await Reader(page, job()).evaluate("() => { throw new Error('no such thing') }")

    stage.on_page("", use)


def test_a_page_that_crashes_meanwhile_is_told(stage: Stage) -> None:
    async def use(page: Page) -> None:
        reader = Reader(page, job())
        asking = asyncio.ensure_future(reader.evaluate("() => new Promise(() => {})"))
        await asyncio.sleep(0.2)
        with suppress(PlaywrightError):
            await page.goto("chrome://crash")
        with pytest.raises(PlaywrightError, match=r"crashed|closed"):
            await asyncio.wait_for(asking, 5)

    stage.on_page("", use)


def test_a_page_that_goes_on_meanwhile_is_read_where_it_went(stage: Stage) -> None:
    async def use(page: Page) -> str:
        reader = Reader(page, job())
        assert await reader.count("li") == 3
        await page.goto("data:text/html,<title>next</title><li>")
        assert await reader.count("li") == 1
        return await reader.title()

    assert stage.on_page(_ROWS, use) == "next"

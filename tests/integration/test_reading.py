"""What is read on the short way is what Playwright reads, and what is not is left to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page

from swarm.browse.reading import Reader
from tests.integration.page_stage import LEFT_TO_PLAYWRIGHT, PageStage, Short, job

_ROWS = "<ul id=rows>" + '<li class="row" data-n="7">one</li>' * 3 + "</ul><p>  two\n words</p>"
_SHADOW = "<div id=h></div><script>h.attachShadow({mode: 'open'}).innerHTML = '<p>in</p>'</script>"


@pytest.fixture(scope="module")
def stage() -> Iterator[PageStage]:
    with PageStage() as stage:
        yield stage


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
def test_elements_are_counted_as_playwright_counts_them(stage: PageStage, selector: str) -> None:
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
def test_selectors_of_playwrights_own_are_left_to_it(stage: PageStage, selector: str) -> None:
    async def use(page: Page) -> None:
        with LEFT_TO_PLAYWRIGHT:
            await Short(page).count(selector)
        assert await Reader(page, job()).count(selector) == await page.locator(selector).count()

    stage.on_page(_ROWS, use)


def test_a_selector_that_does_not_parse_is_playwrights_to_refuse(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        with pytest.raises(PlaywrightError, match="li > > "):
            await Reader(page, job()).count("li > > li")
        with pytest.raises(PlaywrightError, match="li,,"):
            await Reader(page, job()).count("li,,li")

    stage.on_page(_ROWS, use)


def test_shadow_trees_are_playwrights_to_look_into(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        reader = Reader(page, job())
        assert await reader.count("p") == 1
        assert await reader.inner_text("p", timeout_ms=5000) == "in"
        with LEFT_TO_PLAYWRIGHT:
            await Short(page).count("p")

    stage.on_page(_SHADOW, use)


def test_text_is_that_of_the_first_element(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        for selector in ("p", "li", "body"):
            text = await page.locator(selector).first.inner_text()
            assert await Short(page).inner_text(selector, timeout_ms=5000) == text

    stage.on_page(_ROWS, use)


def test_text_that_comes_late_is_waited_for(stage: PageStage) -> None:
    async def use(page: Page) -> str:
        await page.evaluate(
            "setTimeout(() => document.body.insertAdjacentHTML('beforeend', '<h2>late</h2>'), 300)"
        )
        return await Reader(page, job()).inner_text("h2", timeout_ms=5000)

    assert stage.on_page(_ROWS, use) == "late"


@pytest.mark.parametrize("markup", [_ROWS, "<html lang=de><title>é \u2028 \U0001f600</title>x", ""])
@pytest.mark.parametrize("options", [{}, {"java_script_enabled": False}], ids=str)
def test_markup_and_title_are_what_playwright_reads(
    stage: PageStage, markup: str, options: dict[str, Any]
) -> None:
    async def use(page: Page) -> None:
        short = Short(page)
        assert await short.content() == await page.content()
        assert await short.title() == await page.title()

    stage.on_page(markup, use, **options)


def test_a_title_that_the_page_took_away_is_asked_of_playwright(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        assert await Reader(page, job()).title() == await page.title()

    stage.on_page("<title>t</title><form name=title></form>", use)


def test_values_pass_through_as_they_are(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        for value in ("a\u2028b'\"</script>`${1}", [1, 2.5, None, True], {"k": {"n": "é"}}):
            assert await Short(page).evaluate("value => ({value})", value) == {"value": value}

    stage.on_page("", use)


def test_what_throws_throws_as_playwright_has_it(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        with pytest.raises(PlaywrightError, match="no such thing"):
            await Reader(page, job()).evaluate("() => { throw new Error('no such thing') }")

    stage.on_page("", use)


def test_a_page_that_crashes_meanwhile_is_told(stage: PageStage) -> None:
    async def use(page: Page) -> None:
        reader = Reader(page, job())
        asking = asyncio.ensure_future(reader.evaluate("() => new Promise(() => {})"))
        await asyncio.sleep(0.2)
        with suppress(PlaywrightError):
            await page.goto("chrome://crash")
        with pytest.raises(PlaywrightError, match=r"crashed|closed"):
            await asyncio.wait_for(asking, 5)

    stage.on_page("", use)


def test_a_page_that_goes_on_meanwhile_is_read_where_it_went(stage: PageStage) -> None:
    async def use(page: Page) -> str:
        reader = Reader(page, job())
        assert await reader.count("li") == 3
        await page.goto("data:text/html,<title>next</title><li>")
        assert await reader.count("li") == 1
        return await reader.title()

    assert stage.on_page(_ROWS, use) == "next"

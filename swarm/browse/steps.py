"""Does the steps of a job on its page."""

from __future__ import annotations

from typing import Any, assert_never

from playwright.async_api import Page

from swarm.browse.actions import NOTHING, extract, screenshot
from swarm.browse.errors import ErrorCode, job_error
from swarm.browse.payload import steps
from swarm.browse.payload.actions import Extract, Screenshot
from swarm.browse.session import Session

_SCROLL_SCRIPT = """([end, y]) => {
  const height = document.documentElement.scrollHeight;
  scrollTo(scrollX, end === null ? scrollY + y : end === 'top' ? 0 : height);
}"""


async def take(step: steps.Step, session: Session, *, stage: str, timeout_ms: float) -> Any:
    """Do one step; its value for `data`, or NOTHING.

    Raises:
        JobError: an assertion that does not hold, or what the deployment does not allow.
        playwright.async_api.Error: an element that is not there in time, and the like.
    """
    match step:
        case Screenshot():
            return await screenshot(step, session, stage=stage, timeout_ms=timeout_ms)
        case Extract():
            return await extract(step, session)
        case steps.Evaluate():
            return await _evaluate(step, session, stage=stage)
        case steps.Goto():
            await session.navigator.open(
                step.url, step.wait_until, timeout_ms=timeout_ms, stage=stage
            )
        case steps.Assert():
            await _assert(step, session, stage=stage, timeout_ms=timeout_ms)
        case steps.Fill():
            value = session.reveal(step.value, stage=stage)
            await session.page.fill(step.selector, value, timeout=timeout_ms)
        case _:
            await _interact(step, session.page, timeout_ms=timeout_ms)
    return NOTHING


_Interaction = steps.Click | steps.Press | steps.Select | steps.Hover | steps.Scroll | steps.WaitFor


async def _interact(step: _Interaction, page: Page, *, timeout_ms: float) -> None:
    """What a visitor does with mouse, keyboard and patience."""
    match step:
        case steps.Click():
            await page.click(
                step.selector, button=step.button, click_count=step.count, timeout=timeout_ms
            )
        case steps.Press(selector=None):
            await page.keyboard.press(step.key)
        case steps.Press():
            await page.press(str(step.selector), step.key, timeout=timeout_ms)
        case steps.Select():
            await page.select_option(step.selector, list(step.values), timeout=timeout_ms)
        case steps.Hover():
            await page.hover(step.selector, timeout=timeout_ms)
        case steps.Scroll():
            await _scroll(step, page, timeout_ms=timeout_ms)
        case steps.WaitFor():
            await _wait_for(step, page, timeout_ms=timeout_ms)
        case _:
            assert_never(step)


async def _scroll(step: steps.Scroll, page: Page, *, timeout_ms: float) -> None:
    if step.selector is not None:
        await page.locator(step.selector).first.scroll_into_view_if_needed(timeout=timeout_ms)
    else:
        await page.evaluate(_SCROLL_SCRIPT, [step.to, step.y])


async def _wait_for(step: steps.WaitFor, page: Page, *, timeout_ms: float) -> None:
    if step.selector is not None:
        await page.locator(step.selector).first.wait_for(state=step.state, timeout=timeout_ms)
    elif step.url is not None:
        await page.wait_for_url(step.url, timeout=timeout_ms)
    elif step.load_state is not None:
        await page.wait_for_load_state(step.load_state, timeout=timeout_ms)
    elif step.ms is not None:
        await page.wait_for_timeout(step.ms)


async def _assert(step: steps.Assert, session: Session, *, stage: str, timeout_ms: float) -> None:
    def fail(found: str) -> None:
        raise job_error(ErrorCode.ACTION_FAILED, f"not as asserted: {found}", stage=stage)

    if step.url is not None and step.url not in session.page.url:
        fail(f"the URL does not contain {step.url!r}")
    if step.selector is None:
        return
    if step.text is not None:
        text = await session.reader.inner_text(step.selector, timeout_ms=timeout_ms)
        if step.text not in text:
            fail(f"{step.selector} does not contain {step.text!r}")
    count = await session.reader.count(step.selector)
    if step.count is not None and count != step.count:
        fail(f"{count} elements match {step.selector}, expected {step.count}")
    if count == 0 and step.count is None:
        fail(f"nothing matches {step.selector}")


async def _evaluate(step: steps.Evaluate, session: Session, *, stage: str) -> Any:
    if not session.settings.allow_evaluate:
        message = "evaluate is not allowed here (browser.allow_evaluate in config.yaml)"
        raise job_error(ErrorCode.INVALID, message, stage=stage)
    value = await session.page.evaluate(step.script, step.argument)
    return await session.outbox.values(value, kind="evaluate")

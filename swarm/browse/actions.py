"""Takes home what a job wants of its page. Values go into `data`, files into the store."""

from __future__ import annotations

from functools import partial
from typing import Any, assert_never

from playwright.async_api import Page

from swarm.browse.errors import ErrorCode, job_error
from swarm.browse.payload import actions
from swarm.browse.readable import main_text_of, markdown_of
from swarm.browse.reading import Reader, once_drawn
from swarm.browse.session import Session

#: What a step without a value gives.
NOTHING = object()
#: Pixels of a picture's longer side beyond which Chromium's compositor repeats or loses parts.
MAX_PICTURE_PX = 16_384
_MAX_LINKS = 10_000

# One round trip for all fields: each call to the browser costs about a millisecond, and a page
# that changes meanwhile cannot give values of two moments.
_EXTRACT_SCRIPT = """fields => Object.fromEntries(Object.entries(fields).map(([name, field]) => {
  const read = element => field.attribute === null
    ? (element.innerText ?? element.textContent).trim() : element.getAttribute(field.attribute);
  if (field.many) return [name, [...document.querySelectorAll(field.selector)].map(read)];
  const element = document.querySelector(field.selector);
  return [name, element === null ? null : read(element)];
}))"""
_LINKS_SCRIPT = """limit => [...document.querySelectorAll('a[href], area[href]')].slice(0, limit)
  .map(link => ({href: String(link.href), text: (link.innerText ?? '').trim(),
                 ...(link.rel ? {rel: link.rel} : {})}))"""
_METADATA_SCRIPT = """() => {
  const content = name => document.querySelector(
    `meta[name="${name}" i], meta[property="${name}" i]`)?.getAttribute('content') ?? null;
  const meta = {};
  for (const element of document.querySelectorAll('meta[name], meta[property]'))
    meta[element.getAttribute('name') ?? element.getAttribute('property')] =
      element.getAttribute('content');
  const structured = [];
  for (const script of document.querySelectorAll('script[type="application/ld+json"]'))
    try { structured.push(JSON.parse(script.textContent)); } catch {}
  return {title: document.title, description: content('description') ?? content('og:description'),
    canonical: document.querySelector('link[rel=canonical]')?.href ?? null,
    language: document.documentElement.lang || null, meta, structured};
}"""
_HEIGHT_SCRIPT = """() => [document.documentElement.scrollWidth,
  document.documentElement.scrollHeight]"""


async def perform(
    action: actions.Action, session: Session, *, stage: str, timeout_ms: float
) -> Any:
    """Do one action; its value for `data`, which for a file is the id of its artifact.

    Raises:
        JobError: a page or a file that is too large.
        playwright.async_api.Error: a selector that matches nothing in time or does not parse,
            or a page that crashed.
    """
    reader, outbox = session.reader, session.outbox
    match action:
        case actions.Screenshot():
            return await screenshot(action, session, stage=stage, timeout_ms=timeout_ms)
        case actions.Pdf():
            return await outbox.content(
                await _pdf(action, session.page), kind="pdf", mime="application/pdf"
            )
        case actions.Html() | actions.Text() | actions.Markdown():
            return await _text(action, session, stage=stage, timeout_ms=timeout_ms)
        case actions.Links():
            return await outbox.values(
                await reader.evaluate(_LINKS_SCRIPT, _MAX_LINKS), kind="links"
            )
        case actions.Metadata():
            return await outbox.values(await reader.evaluate(_METADATA_SCRIPT), kind="metadata")
        case actions.Extract():
            return await extract(action, session)
        case actions.Download():
            return await _download(action, session, stage=stage, timeout_ms=timeout_ms)
        case _:
            assert_never(action)


async def screenshot(
    action: actions.Screenshot, session: Session, *, stage: str, timeout_ms: float
) -> str:
    """Take a picture; the id of its artifact.

    Raises:
        JobError: RESOURCE_LIMIT, the page is larger than a picture can be.
    """
    page, quality = session.page, action.quality
    options: dict[str, Any] = {"type": action.format, "quality": quality, "timeout": timeout_ms}
    if action.full_page:
        await _check_size(session.reader, stage=stage)
        options["full_page"] = True
    if action.clip is not None:
        options["clip"] = action.clip.model_dump()
    if action.selector is not None:
        element = page.locator(action.selector).first
        picture = await once_drawn(partial(element.screenshot, **options))
    elif action.full_page or action.clip is not None:
        picture = await once_drawn(partial(page.screenshot, **options))
    else:
        picture = await session.reader.viewport(
            encoding=action.format, quality=quality, timeout_ms=timeout_ms
        )
    return await session.outbox.content(picture, kind="screenshot", mime=f"image/{action.format}")


async def _check_size(reader: Reader, *, stage: str) -> None:
    width, height = await reader.evaluate(_HEIGHT_SCRIPT)
    if max(width, height) > MAX_PICTURE_PX:
        message = (
            f"the page is {width} by {height} pixels, a picture at most {MAX_PICTURE_PX}; "
            "use a clip, or a pdf"
        )
        raise job_error(ErrorCode.RESOURCE_LIMIT, message, stage=stage)


async def extract(action: actions.Extract, session: Session) -> Any:
    """The named values, or the id of the artifact that holds them."""
    fields = {name: field.model_dump() for name, field in action.fields.items()}
    values = await session.reader.evaluate(_EXTRACT_SCRIPT, fields)
    return await session.outbox.values(values, kind="extract")


async def _pdf(action: actions.Pdf, page: Page) -> bytes:
    margin = f"{action.margin_mm}mm"
    return await page.pdf(
        format=action.format,
        landscape=action.landscape,
        print_background=action.print_background,
        scale=action.scale,
        page_ranges=action.page_ranges or "",
        margin={"top": margin, "right": margin, "bottom": margin, "left": margin},
    )


async def _text(
    action: actions.Html | actions.Text | actions.Markdown,
    session: Session,
    *,
    stage: str,
    timeout_ms: float,
) -> str:
    """The page in one of the forms that people and programs read; large ones as an artifact."""
    page, reader = session.page, session.reader
    match action:
        case actions.Html(selector=None):
            text = await reader.content()
        case actions.Html():
            element = page.locator(str(action.selector)).first
            text = await element.evaluate("element => element.outerHTML", timeout=timeout_ms)
        case actions.Text(main_content=True):
            text = await main_text_of(await reader.content(), page.url, stage=stage)
        case actions.Text():
            text = await reader.inner_text(action.selector, timeout_ms=timeout_ms)
        case actions.Markdown():
            text = await markdown_of(
                await reader.content(), page.url, main_content=action.main_content, stage=stage
            )
        case _:
            assert_never(action)
    mime = {"html": "text/html", "text": "text/plain", "markdown": "text/markdown"}[action.kind]
    return await session.outbox.text(text, kind=action.kind, mime=mime)


async def _download(
    action: actions.Download, session: Session, *, stage: str, timeout_ms: float
) -> str:
    if action.selector is not None:
        await session.page.click(action.selector, timeout=timeout_ms)
    path = await session.downloads.next(stage=stage)
    return await session.outbox.file(path, kind="download", mime="application/octet-stream")

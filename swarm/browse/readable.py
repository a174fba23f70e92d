"""Markup to what people read: Markdown and the text of the article."""

from __future__ import annotations

import asyncio

import trafilatura
from lxml import html as lxml_html
from markdownify import markdownify

from swarm.browse.errors import ErrorCode, job_error

#: Characters of markup beyond which the libraries take minutes.
MAX_MARKUP_CHARACTERS = 5_000_000


async def markdown_of(markup: str, url: str, *, main_content: bool, stage: str) -> str:
    """The page as Markdown.

    Raises:
        JobError: RESOURCE_LIMIT, the page is too large for it.
    """
    _check_size(markup, stage=stage)
    if main_content:
        return await asyncio.to_thread(_article, markup, url, "markdown")
    return await asyncio.to_thread(_whole, markup, url)


async def main_text_of(markup: str, url: str, *, stage: str) -> str:
    """The text of the article.

    Raises:
        JobError: RESOURCE_LIMIT, the page is too large for it.
    """
    _check_size(markup, stage=stage)
    return await asyncio.to_thread(_article, markup, url, "txt")


def _check_size(markup: str, *, stage: str) -> None:
    if len(markup) > MAX_MARKUP_CHARACTERS:
        message = f"{len(markup)} characters of markup, at most {MAX_MARKUP_CHARACTERS} can be read"
        raise job_error(ErrorCode.RESOURCE_LIMIT, message, stage=stage)


def _article(markup: str, url: str, output_format: str) -> str:
    text: str | None = trafilatura.extract(
        markup,
        url=url,
        output_format=output_format,
        include_links=output_format == "markdown",
        favor_recall=True,
    )
    return text or ""


def _whole(markup: str, url: str) -> str:
    document = lxml_html.document_fromstring(markup, base_url=url)
    document.make_links_absolute(  # type: ignore[attr-defined]
        resolve_base_href=True, handle_failures="ignore"
    )
    body = document.find("body")
    shown = document if body is None else body
    for element in list(shown.iter("script", "style", "noscript", "template")):
        # Not remove(), which takes the text that follows along.
        element.drop_tree()  # type: ignore[attr-defined]
    text: str = markdownify(lxml_html.tostring(shown, encoding="unicode"), heading_style="ATX")
    return text.strip()

"""Pages to readable text, metadata and links; no browser, no network."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import lxml.etree
import lxml.html
import trafilatura

from swarm.analysis.model import AnalysisJob, AnalysisResult, Link


def analyse(job: AnalysisJob) -> AnalysisResult:
    """Never fails on markup: what cannot be parsed has no text and no links."""
    document = _parse(job.html)
    if document is None:
        return AnalysisResult(None, None, None, None, None, text="", words=0, links=())
    metadata = trafilatura.extract_metadata(document, default_url=job.url)
    # Recall over precision: short pages, such as product cards, would otherwise come out empty.
    text = trafilatura.extract(document, url=job.url, favor_recall=True) or ""
    return AnalysisResult(
        title=metadata.title,
        author=metadata.author,
        date=metadata.date,
        description=metadata.description,
        site_name=metadata.sitename,
        text=text,
        words=len(text.split()),
        links=_links(document, job.url),
    )


def _parse(html: str) -> lxml.html.HtmlElement | None:
    try:
        # lxml refuses a str that declares an encoding; bytes with the encoding told are fine.
        parser = lxml.html.HTMLParser(encoding="utf-8")
        return lxml.html.document_fromstring(html.encode("utf-8", errors="replace"), parser=parser)
    except lxml.etree.ParserError:
        return None


def _links(document: lxml.html.HtmlElement, base: str | None) -> tuple[Link, ...]:
    """http(s) links in document order, each address once; relative ones need a base."""
    found: dict[str, Link] = {}
    for anchor in document.iter("a"):
        address = anchor.get("href")
        if address is None:  # a place, not a link
            continue
        try:
            href = urljoin(base or "", address.strip())
            scheme = urlsplit(href).scheme
        except ValueError:
            continue
        if scheme in {"http", "https"} and href not in found:
            found[href] = Link(href, " ".join(anchor.text_content().split()))
    return tuple(found.values())

"""Analysis: readable text, metadata and links; whatever the markup, an answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.pages import respond
from swarm.analysis.model import AnalysisJob, AnalysisResult, Link, parse_analysis_job
from swarm.analysis.reading import analyse
from swarm.errors import ConfigError

ARTICLE = """<!doctype html><html lang="en"><head><title>Harbours</title>
<meta name="author" content="Ada Marsh"><meta name="description" content="On harbours">
<meta property="og:site_name" content="The Pages"><meta name="date" content="2024-05-06">
</head><body><nav><a href="/">All</a></nav><article><h1>Harbours</h1>
<p>The harbour lies behind the granite wall, and the lantern is lit at dusk.</p>
<p>Every boat in the valley knows the signal, and answers with copper bells.</p>
</article><a href="/next?page=2">The  next
one</a><a href="https://example.org/x">Elsewhere</a><a href="mailto:a@b.c">Write</a>
<a href="/next?page=2">again</a><a>no address</a><a href="http://[bad">bad</a></body></html>"""


def read(html: str, url: str | None = None) -> AnalysisResult:
    return analyse(AnalysisJob(html=html, url=url))


def test_an_article_gives_metadata_text_and_links() -> None:
    result = read(ARTICLE, "http://pages.lab/page/1")
    assert result.title == "Harbours"
    assert result.author == "Ada Marsh"
    assert result.description == "On harbours"
    assert result.site_name == "The Pages"
    assert result.date == "2024-05-06"
    assert "granite wall" in result.text
    assert "copper bells" in result.text
    assert result.words == len(result.text.split())
    assert result.links == (
        Link("http://pages.lab/", "All"),
        Link("http://pages.lab/next?page=2", "The next one"),
        Link("https://example.org/x", "Elsewhere"),
    )


def test_without_an_address_only_absolute_links_are_told() -> None:
    assert read(ARTICLE).links == (Link("https://example.org/x", "Elsewhere"),)


@pytest.mark.parametrize("number", range(1, 11))
def test_the_demos_pages_have_text_and_links(number: int) -> None:
    result = read(respond(f"/page/{number}").body, f"http://pages.lab/page/{number}")
    assert result.title
    assert result.links


@pytest.mark.parametrize(
    "html",
    [
        " ",
        "<!-- -->",
        "<!doctype html>",
        "plain words",
        "\x00",
        "<html>\x00</html>",
        "<?xml version='1.0' encoding='utf-16'?><html><body>x</body></html>",
        "<a href='http://h/\x00'>x</a>",
        "<" * 1000,
        "<div>" * 5000,
        "<svg><a xlink:href='x'>y</a></svg>",
        "<a href=' JAVASCRIPT:x '>y</a>",
    ],
)
def test_broken_markup_has_an_answer(html: str) -> None:
    result = read(html, "http://h/")
    assert result.status == "ok"


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(
            ["<p>", "</p>", "<a href='", "'>", "</a>", "<!--", "-->", "<title>", "<table>", "<td>"]
        )
        | st.text(max_size=8),
        min_size=1,
        max_size=15,
    )
)
def test_any_markup_has_an_answer(parts: list[str]) -> None:
    html = "".join(parts)
    if html:
        assert read(html, "http://h/").status == "ok"


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        ({}, "payload: html"),
        ({"html": ""}, "payload: html"),
        ({"html": 3}, "payload: html"),
        ({"html": "x", "url": "ftp://h"}, "payload: url"),
        ({"html": "x", "links": True}, "payload: links"),
        ({"html": "x", "version": 2}, "payload: version"),
    ],
)
def test_a_wrong_field_is_refused_by_its_name(payload: object, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_analysis_job(payload)
    assert [problem.where for problem in caught.value.problems] == [where]

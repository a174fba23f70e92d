"""Actions on a page that answers what it is told to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from swarm.browse.actions import perform
from swarm.browse.directory_store import DirectoryStore
from swarm.browse.downloads import Downloads
from swarm.browse.errors import JobError
from swarm.browse.navigation import Navigator
from swarm.browse.outbox import Outbox
from swarm.browse.payload import parse_browser_job
from swarm.browse.reading import Reader
from swarm.browse.secrets import Redactor, Secrets
from swarm.browse.session import Session
from swarm.settings import BrowserSettings


class Page:
    """As much of Playwright's page as actions use."""

    def __init__(self, *, text: str = "", values: Any = None) -> None:
        self.text, self.values = text, values
        self.asked: list[Any] = []

    async def screenshot(self, **options: Any) -> bytes:
        self.asked.append(options)
        return b"\x89PNG"

    async def content(self) -> str:
        return self.text

    def locator(self, selector: str) -> Page:
        self.asked.append(selector)
        return self

    @property
    def first(self) -> Page:
        return self

    async def inner_text(self, **options: Any) -> str:
        self.asked.append(options)
        return self.text

    def on(self, _event: str, _handler: Any) -> None: ...

    async def evaluate(self, _script: str, fields: Any = None) -> Any:
        self.asked.append(fields)
        return self.values


async def run(tmp_path: Path, page: Page, **fields: Any) -> tuple[Any, Any]:
    """The action's value and the artifact it left, if any."""
    # With a trace all is asked of Playwright.
    capture = {"trace": "on"}
    job = parse_browser_job({"url": "http://h/", "actions": [fields], "capture": capture})
    redactor = Redactor()
    outbox = Outbox(DirectoryStore(tmp_path, host="h1"), redactor, inline_bytes=1024)
    fake: Any = page
    session = Session(
        job=job,
        page=fake,
        reader=Reader(fake, job),
        navigator=Navigator(fake, job),
        downloads=Downloads(fake, max_bytes=1, on_excess=print),
        outbox=outbox,
        secrets=Secrets({}),
        redactor=redactor,
        settings=BrowserSettings(),
    )
    value = await perform(job.actions[0], session, stage="action", timeout_ms=500)
    return value, outbox.artifacts[0] if outbox.artifacts else None


def stored(artifact: Any) -> bytes:
    return Path(urlsplit(artifact.url).path).read_bytes()


async def test_a_screenshot_is_an_artifact(tmp_path: Path) -> None:
    page = Page(values=[800, 3000])
    value, artifact = await run(tmp_path, page, kind="screenshot", full_page=True)
    assert page.asked == [None, {"full_page": True, "timeout": 500, "type": "png", "quality": None}]
    assert value == artifact.id
    assert stored(artifact) == b"\x89PNG"


async def test_a_page_beyond_what_a_picture_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="RESOURCE_LIMIT"):
        await run(tmp_path, Page(values=[800, 1_000_000]), kind="screenshot", full_page=True)


@pytest.mark.parametrize("kind", ["html", "text"])
@pytest.mark.parametrize(
    ("text", "inline"), [("x" * 1024, True), ("x" * 1025, False), ("é" * 513, False)]
)
async def test_what_is_large_becomes_an_artifact(
    tmp_path: Path, kind: str, text: str, *, inline: bool
) -> None:
    value, artifact = await run(tmp_path, Page(text=text), kind=kind)
    if inline:
        assert (value, artifact) == (text, None)
    else:
        assert value == artifact.id
        assert artifact.kind == kind
        assert stored(artifact) == text.encode()


async def test_text_that_is_no_unicode_can_be_kept(tmp_path: Path) -> None:
    _, artifact = await run(tmp_path, Page(text="\ud800" * 2000), kind="text")
    assert stored(artifact) == b"?" * 2000


async def test_text_is_of_the_first_match_in_time(tmp_path: Path) -> None:
    page = Page(text="Title")
    assert (await run(tmp_path, page, kind="text", selector="h1"))[0] == "Title"
    assert page.asked == ["h1", {"timeout": 500}]


async def test_all_fields_are_asked_for_at_once(tmp_path: Path) -> None:
    page = Page(values={"a": "x", "b": None})
    fields = {"a": {"selector": "h1"}, "b": {"selector": "a", "attribute": "href", "many": True}}
    value, artifact = await run(tmp_path, page, kind="extract", fields=fields)
    assert (value, artifact) == ({"a": "x", "b": None}, None)
    assert page.asked == [
        {
            "a": {"selector": "h1", "attribute": None, "many": False},
            "b": {"selector": "a", "attribute": "href", "many": True},
        }
    ]


async def test_large_extracts_become_an_artifact(tmp_path: Path) -> None:
    values = {"a": ["x" * 600, "y" * 600]}
    fields = {"a": {"selector": "p", "many": True}}
    value, artifact = await run(tmp_path, Page(values=values), kind="extract", fields=fields)
    assert value == artifact.id
    assert artifact.mime == "application/json"
    assert json.loads(stored(artifact)) == values

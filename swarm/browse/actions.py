"""What each action does on a loaded page. Outcomes go into `data`, files into the store."""

from __future__ import annotations

import json
from typing import Any, assert_never

from playwright.async_api import Page

from swarm.browse.artifacts import ArtifactStore
from swarm.browse.model import (
    Action,
    Artifact,
    Extract,
    ExtractField,
    Html,
    Screenshot,
    Text,
)

# One round trip for all fields: each call to the browser costs about a millisecond, and a page
# that changes meanwhile cannot give values of two moments.
_EXTRACT_SCRIPT = """fields => Object.fromEntries(Object.entries(fields).map(([name, field]) => {
  const read = element => field.attribute === null
    ? (element.innerText ?? element.textContent).trim() : element.getAttribute(field.attribute);
  if (field.many) return [name, [...document.querySelectorAll(field.selector)].map(read)];
  const element = document.querySelector(field.selector);
  return [name, element === null ? null : read(element)];
}))"""


async def perform(
    action: Action, page: Page, store: ArtifactStore, *, inline_bytes: int, timeout_ms: float
) -> tuple[Any, Artifact | None]:
    """Do one action.

    Returns its value for `data` and the artifact it left, of which the value is then the id.

    Raises:
        playwright.async_api.Error: a selector that matches nothing in time or does not parse,
            or a page that crashed.
    """
    match action:
        case Screenshot():
            png = await page.screenshot(full_page=action.full_page, timeout=timeout_ms)
            artifact = await store.put(png, kind="screenshot", mime="image/png")
            return artifact.id, artifact
        case Html():
            return await _text_or_artifact(
                await page.content(), store, kind="html", mime="text/html", inline=inline_bytes
            )
        case Text():
            text = await page.locator(action.selector).first.inner_text(timeout=timeout_ms)
            return await _text_or_artifact(
                text, store, kind="text", mime="text/plain", inline=inline_bytes
            )
        case Extract():
            fields = {name: _plain(field) for name, field in action.fields.items()}
            values = await page.evaluate(_EXTRACT_SCRIPT, fields)
            # JSON in an artifact; inline the values themselves.
            text, large = await _text_or_artifact(
                json.dumps(values),
                store,
                kind="extract",
                mime="application/json",
                inline=inline_bytes,
            )
            return (text, large) if large else (values, None)
        case _:
            assert_never(action)


def _plain(field: ExtractField) -> dict[str, object]:
    return {"selector": field.selector, "attribute": field.attribute, "many": field.many}


async def _text_or_artifact(
    text: str, store: ArtifactStore, *, kind: str, mime: str, inline: int
) -> tuple[str, Artifact | None]:
    content = text.encode("utf-8", errors="replace")
    if len(content) <= inline:
        return text, None
    artifact = await store.put(content, kind=kind, mime=mime)
    return artifact.id, artifact

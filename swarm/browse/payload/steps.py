"""What a job does on the page, in order, before it takes anything home."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from swarm.browse.payload.actions import Extract, Screenshot
from swarm.browse.payload.parts import Doing, SecretText, Selector
from swarm.browse.urls import PageUrl

WaitUntil = Literal["load", "domcontentloaded", "networkidle", "commit"]


class Goto(Doing):
    """Open another page."""

    kind: Literal["goto"]
    url: PageUrl
    wait_until: WaitUntil = "load"


class Click(Doing):
    """Click an element once it is visible, stable and enabled."""

    kind: Literal["click"]
    selector: Selector
    button: Literal["left", "right", "middle"] = "left"
    count: int = Field(default=1, ge=1, le=3)


class Fill(Doing):
    """Put a text into a field, in place of what stood there."""

    kind: Literal["fill"]
    selector: Selector
    value: SecretText


class Press(Doing):
    """Press a key, such as `Enter` or `Control+A`, on an element or on what has the focus."""

    kind: Literal["press"]
    key: str = Field(min_length=1, max_length=100)
    selector: Selector | None = None


class Select(Doing):
    """Choose options of a `select` by their value or label."""

    kind: Literal["select"]
    selector: Selector
    values: tuple[Annotated[str, Field(max_length=1000)], ...] = Field(
        min_length=1, max_length=100, strict=False
    )


class Hover(Doing):
    """Move the mouse onto an element."""

    kind: Literal["hover"]
    selector: Selector


class Scroll(Doing):
    """Scroll an element into view, or the page by pixels or to its end."""

    kind: Literal["scroll"]
    selector: Selector | None = None
    y: int | None = Field(default=None, ge=-1_000_000, le=1_000_000)
    """Pixels downwards."""
    to: Literal["top", "bottom"] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Scroll:
        if sum(value is not None for value in (self.selector, self.y, self.to)) != 1:
            raise ValueError("one of selector, y and to")
        return self


class WaitFor(Doing):
    """Wait for an element, a URL, a state of loading, or for some time."""

    kind: Literal["wait_for"]
    selector: Selector | None = None
    state: Literal["attached", "detached", "visible", "hidden"] = "visible"
    """Of the element that `selector` names."""
    url: str | None = Field(default=None, min_length=1, max_length=2000)
    """A glob, such as `**/done?*`."""
    load_state: Literal["load", "domcontentloaded", "networkidle"] | None = None
    ms: int | None = Field(default=None, ge=1, le=300_000)

    @model_validator(mode="after")
    def _says_one_thing(self) -> WaitFor:
        chosen = (self.selector, self.url, self.load_state, self.ms)
        if sum(value is not None for value in chosen) != 1:
            raise ValueError("one of selector, url, load_state and ms")
        return self


class Assert(Doing):
    """Fail unless the page is as it should be: an element, its text, their number, the URL."""

    kind: Literal["assert"]
    selector: Selector | None = None
    text: str | None = Field(default=None, max_length=10_000)
    """What the first element's text contains."""
    count: int | None = Field(default=None, ge=0)
    """How many elements match; at least one when neither this nor `text` is given."""
    url: str | None = Field(default=None, min_length=1, max_length=2000)
    """What the page's URL contains."""

    @model_validator(mode="after")
    def _has_something_to_look_at(self) -> Assert:
        if self.selector is None and self.url is None:
            raise ValueError("selector or url")
        if self.selector is None and (self.text is not None or self.count is not None):
            raise ValueError("a selector beside text and count")
        return self


class Evaluate(Doing):
    """Run JavaScript in the page; only where `browser.allow_evaluate` is set."""

    kind: Literal["evaluate"]
    script: str = Field(min_length=1, max_length=100_000)
    """An expression, or a function that is called with `argument`."""
    argument: Any = None


Step = Annotated[
    Goto
    | Click
    | Fill
    | Press
    | Select
    | Hover
    | Scroll
    | WaitFor
    | Assert
    | Screenshot
    | Extract
    | Evaluate,
    Field(discriminator="kind"),
]

"""What a job takes home from the page, once its steps are done."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from swarm.browse.payload.parts import Doing, Name, Part, Selector


class Clip(Part):
    """A rectangle of the page in CSS pixels."""

    x: float = Field(ge=0)
    y: float = Field(ge=0)
    width: float = Field(gt=0, le=16_384)
    height: float = Field(gt=0, le=16_384)


class Screenshot(Doing):
    """A picture of the viewport, of the whole page, of one element or of a rectangle."""

    kind: Literal["screenshot"]
    full_page: bool = False
    selector: Selector | None = None
    clip: Clip | None = None
    format: Literal["png", "jpeg"] = "png"
    quality: int | None = Field(default=None, ge=1, le=100)
    """Of a JPEG, in percent."""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Screenshot:
        areas = [self.full_page, self.selector is not None, self.clip is not None]
        if sum(areas) > 1:
            raise ValueError("at most one of full_page, selector and clip")
        if self.quality is not None and self.format != "jpeg":
            raise ValueError("quality only with the format jpeg")
        return self


class Pdf(Doing):
    """The page as it would be printed."""

    kind: Literal["pdf"]
    format: Literal["Letter", "Legal", "Tabloid", "A3", "A4", "A5"] = "A4"
    landscape: bool = False
    print_background: bool = True
    scale: float = Field(default=1, ge=0.1, le=2)
    margin_mm: float = Field(default=10, ge=0, le=100)
    page_ranges: str | None = Field(default=None, pattern=r"^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$")
    """Such as `1-5,8`; all pages when not given."""


class Html(Doing):
    """The markup after scripts ran, of the document or of one element."""

    kind: Literal["html"]
    selector: Selector | None = None


class Text(Doing):
    """The text that a reader sees (`innerText`), of the page or of one element."""

    kind: Literal["text"]
    selector: Selector = "body"
    main_content: bool = False
    """Only the article, without navigation and footers (trafilatura)."""


class Markdown(Doing):
    """The page as Markdown."""

    kind: Literal["markdown"]
    main_content: bool = True
    """Only the article, without navigation and footers; else everything in `body`."""


class Links(Doing):
    """Every link of the page: absolute `href`, `text`, and `rel` where there is one."""

    kind: Literal["links"]


class Metadata(Doing):
    """Title, description, canonical URL, language, and what the page says in `meta` and JSON-LD."""

    kind: Literal["metadata"]


class ExtractField(Part):
    """One value: the text or an attribute of the first element that matches, or of all."""

    selector: Selector
    attribute: str | None = Field(default=None, min_length=1, max_length=200)
    many: bool = False


class Extract(Doing):
    """Named values picked by CSS selectors; absent elements give null, or an empty list."""

    kind: Literal["extract"]
    fields: dict[Name, ExtractField] = Field(min_length=1, max_length=200)


class Download(Doing):
    """The file that a click starts, or that the URL of the job is."""

    kind: Literal["download"]
    selector: Selector | None = None
    """What to click; when not given, the URL itself answers with a file."""


Action = Annotated[
    Screenshot | Pdf | Html | Text | Markdown | Links | Metadata | Extract | Download,
    Field(discriminator="kind"),
]
